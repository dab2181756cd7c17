"""Which jobs a command line means, in Hydra's grammar, and which it refuses."""

import pytest

from app.config.overrides import options
from app.errors import UserError
from app.sweep.jobs import read_sweep
from app.sweep.run import sweep


def jobs(*arguments: str):
    return read_sweep([*arguments, "out=runs/s"]).jobs


def swept(*arguments: str) -> list[str]:
    return [" ".join(job.swept) for job in jobs(*arguments)]


def test_every_combination_is_a_job_with_a_folder_of_its_own():
    made = jobs("recipe=tiny,pair_bias_light", "optimizer.lr=1e-3,1e-4", "trainer.max_steps=4")
    assert [job.name for job in made] == [
        "recipe-tiny_lr-0.001", "recipe-tiny_lr-0.0001", "recipe-pair_bias_light_lr-0.001",
        "recipe-pair_bias_light_lr-0.0001",
    ]  # fmt: skip
    assert made[0].arguments == (
        "recipe=tiny", "optimizer.lr=0.001", "trainer.max_steps=4", "out=runs/s/recipe-tiny_lr-0.001", "resume=auto",
    )  # fmt: skip
    assert made[0].swept == ("recipe=tiny", "optimizer.lr=0.001")


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("seed=range(1,4)", ["1", "2", "3"]),
        ("seed=choice(5,7)", ["5", "7"]),
        ("seed=sort(3,1,2)", ["1", "2", "3"]),
        ("optimizer.betas=[0.9,0.99],[0.8,0.9]", ["[0.9,0.99]", "[0.8,0.9]"]),
        ("ema.decay=null,0.99", ["null", "0.99"]),
        ("name='a b',c", ["'a b'", "c"]),
        ("trainer=glob([c*,m*])", ["cpu", "mps"]),
        ("weights=runs/lr=1/a.ckpt,b c.ckpt", ["runs/lr=1/a.ckpt", "b c.ckpt"]),  # paths as typed
        ("data.path=choice(/a, /b c)", ["/a", "/b c"]),
        ("data.path='/a b','/c, d'", ["'/a b'", "'/c, d'"]),
        ('data.path=/it\'s,"/a,b",/c', ["/it's", '"/a,b"', "/c"]),
        ("data.path=/a,,/b", ["/a", "", "/b"]),  # for composing to refuse
    ],
)
def test_values_are_told_as_hydra_tells_them(argument, values):
    key = argument.partition("=")[0]
    assert swept(argument) == [f"{key}={value}" for value in values]


def test_a_glob_of_everything_is_every_option():
    assert swept("schedule=glob(*)") == [f"schedule={name}" for name in options()["schedule"]]


def test_lists_and_quoted_commas_are_one_value():
    made = jobs("seed=1,2", "optimizer.betas=[0.9,0.99]", "name='a,b'", "data.path='x,y'")
    assert len(made) == 2
    assert made[0].arguments[1:4] == ("optimizer.betas=[0.9,0.99]", "name='a,b'", "data.path='x,y'")


def test_a_path_with_commas_that_is_there_is_one_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my, data"
    folder.mkdir()
    made = jobs("seed=1,2", f"data.path={folder}")
    assert len(made) == 2 and made[0].arguments[1] == f"data.path={folder}"
    assert len(read_sweep(["seed=1,2", "out=my, data"]).jobs) == 2


def test_the_same_job_has_the_same_folder_in_a_larger_sweep_in_any_order():
    small = {job.swept: job.name for job in jobs("seed=1,2", "optimizer.betas=[0.9,0.99],[0.8,0.9]")}
    large = {
        job.swept: job.name for job in jobs("seed=shuffle(3,2,1)", "optimizer.betas=[0.7,0.9],[0.8,0.9],[0.9,0.99]")
    }
    assert small.items() <= large.items() and len(set(large.values())) == 9


def test_folders_tell_keys_and_odd_values_apart():
    names = [job.name for job in jobs("optimizer.eps=1,2", "model.trunk.eps=1,2", "data.path=a/b,a-b")]
    assert len(set(names)) == 8 and names[0].startswith("optimizer.eps-1_model.trunk.eps-1_path-a-b")
    assert not any("/" in name or "," in name or "=" in name for name in names)
    long = jobs(f"name={'x' * 300}1,{'x' * 300}2")
    assert len({job.name for job in long}) == 2 and all(len(job.name) < 140 for job in long)


def test_folders_keep_signs():
    assert [job.name for job in jobs("trainer.max_epochs=-1,1")] == ["max_epochs--1", "max_epochs-1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recipe=tiny", "out=runs/s"], "nothing is swept"),
        (["seed=range(1,1)", "out=runs/s"], "no such value"),
        (["recipe=glob(zz*)", "out=runs/s"], "no such value"),
        (["seed=glob(*)", "out=runs/s"], "seed is no group"),
        (["seed=interval(0,1)", "out=runs/s"], "an interval has no end"),
        (["seed=choice(1,choice(2,3))", "out=runs/s"], "seed=choice(1,choice(2,3)): cannot be read"),
        (["seed=1,2"], "name one folder for the whole sweep"),
        (["seed=1,2", "out=a,b"], "out is not swept"),
        (["seed=1,2", "out='a','b'"], "out is not swept"),
        (["recipe=tiny", "data=structures", "data.path=choice(.,b)", "out=a", "trainer.max_steps=1"],
         "job path-b: data.path=b: no such file or folder"),
        (["seed=1,2", "out=a", "out=b"], "name one folder"),
        (["seed=1,2", "out=a", "resume=last.ckpt"], "resume=last.ckpt: every job"),
        (["seed=1,2", "out=a", "resume=auto,b.ckpt"], "every job"),
        (["seed=1,1", "out=a"], "seed=1: twice"),
        (["seed=1,2", "out=a", "hydra.sweep.dir=b"], "hydra.sweep.dir: of Hydra's own settings"),
        (["seed=1,2", "out=a", "hydra.launcher.partition=b"], "no effect without hydra/launcher=submitit_slurm"),
        (["seed=1,2", "out=a", "hydra/launcher=joblib"], "give basic"),
        (["seed=1,2", "out=a", "recipe=tiny"], "job seed-1: would never end"),
        (["recipe=tiny,tinny", "out=a", "trainer.max_steps=1"], "did you mean tiny"),
        (["recipe=tiny", "optimizer.lr=1e-3,fast", "out=a", "trainer.max_steps=1"], "job lr-fast: optimizer.lr='fast'"),
        (["recipe=tiny", "optimizer.rl=1e-3,1", "out=a", "trainer.max_steps=1"], "job rl-0.001: unknown key"),
        (["recipe=tiny", "seed=1,,2", "optimizer.lr=1,2", "out=a", "trainer.max_steps=1"], "seed=1,,2: the value"),
        (["recipe=tiny,linear_memory", "model.edge_embed.num_bins=5", "out=a", "trainer.max_steps=1"],
         "job recipe-linear_memory: model.edge_embed.num_bins has no effect"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_error_before_anything_begins(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^[^\n]*$") as refused:
        sweep(["--multirun", *arguments])
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable", [{"LOCAL_RANK": "1"}, {"SLURM_STEP_NUM_TASKS": "2"}])
def test_a_sweep_is_started_once(variable, monkeypatch):
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="start it once"):
        sweep(["-m", "seed=1,2", "out=a"])
