import io

from rich.console import Console

from app.sampling.display import Display


def test_the_bar_tells_designs_length_step_and_the_time_left():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    with Display(console=console) as display:
        display.start([10, 10, 100], designs=5)
        display.step(10, 2, step=3, steps=4)
        display._progress.refresh()
        task = display._progress.tasks[0]
        assert task.total == 2 * 10**2 + 100**2
        assert task.completed == 2 * 10**2 * 3 / 4
        display.finished(10, 2)
        assert task.completed == 2 * 10**2 and task.fields["done"] == 4
        display.step(100, 1, step=1, steps=4)
        display._progress.refresh()
    said = text.getvalue()
    assert "2 of 5 designs are there already" in said
    assert "4/5" in said and "2 of length 10, step 3/4" in said and "1 of length 100, step 1/4" in said


def test_a_process_that_is_not_the_first_is_quiet(capsys):
    with Display(quiet=True) as display:
        display.step(10, 2, step=3, steps=4)
        display.say("something")
        assert list(display.verifying([1, 2])) == [1, 2]
    assert capsys.readouterr().out == ""
