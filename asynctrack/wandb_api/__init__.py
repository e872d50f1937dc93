"""W&B's names: what a script for W&B finds after `import asynctrack as wandb`, and what of it is not supported. Runs in the caller."""
