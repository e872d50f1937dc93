"""Hugging Face's Trainer teaches a tiny Llama to count, tracked by asynctrack: python examples/transformers_training.py [directory of runs]

pip install torch transformers accelerate asynctrack
"""

import sys
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from asynctrack.integrations.transformers import AsyncCallback


class Counting(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, at):
        tokens = torch.arange(at, at + 6) % 16
        return {"input_ids": tokens, "labels": tokens}


def make_trainer(output_dir, *callbacks, steps=4):
    """Make a trainer that starts from scratch, the same each time."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    args = TrainingArguments(
        output_dir=str(output_dir),
        run_name="tiny",
        max_steps=steps,
        learning_rate=0.01,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="no",
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    return Trainer(model, args, train_dataset=Counting(), eval_dataset=Counting(), callbacks=list(callbacks))


if __name__ == "__main__":
    callback = AsyncCallback("llama", dir=sys.argv[1] if len(sys.argv) > 1 else "asynctrack_runs")  # the one line
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = make_trainer(output_dir, callback, steps=20)
        trainer.train()
        print(f"loss {trainer.evaluate()['eval_loss']:.2f}; {callback.run.path} has the run")
