"""Optuna looks for the minimum of a function, tracked by asynctrack: python examples/optuna_search.py

pip install optuna asynctrack
"""

import optuna

from asynctrack.integrations.optuna import AsyncCallback


def objective(trial):
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_float("y", -5, 5)
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    with AsyncCallback("himmelblau") as track:  # the one line, and the callback
        study.optimize(objective, n_trials=50, callbacks=[track])
    print(f"{study.best_value:.3f} is the best value; {track.run.path} has the run")
