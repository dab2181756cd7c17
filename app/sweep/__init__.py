"""Many runs by one command: `python train.py --multirun key=a,b ...`, each in processes of its own."""
