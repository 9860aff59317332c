"""VQA v2 at full size, from a pretrained model.

  cbalign data build vqa_v2 --manual-dir=DIR
  cbalign train --config=paper/vqa --workdir=runs/paper/vqa
  cbalign evaluate --workdir=runs/paper/vqa --split=test     # writes the file for the evaluation server
  cbalign tables --suite=paper --result=vqa.test-dev=FIGURE  # enters what the server found

ALBEF's and TCL's recipe (their `configs/VQA.yaml` hold the same numbers) and what is here:

  image_res: 384                       data.image_size = 384
  batch_size_train: 32                 train.batch_size = 256              on each of 8 GPUs
  batch_size_test: 16                  eval.batch_size = 128               differs: on each of 8 GPUs; no figure changes
  k_test: 128                          vqa.rank_top_k = 128
  alpha: 0.4                           contrast.alpha = 0.4
  warm_up: True                        contrast.alpha_ramp_steps = -1      over the first epoch
  optimizer.lr: 2e-5                   optimizer.learning_rate = 2e-5
  optimizer.weight_decay: 0.02         optimizer.weight_decay = 0.02
  schedular.epochs: 8                  train.epochs = 8
  schedular.min_lr: 1e-6               optimizer.final_learning_rate = 1e-6
  schedular.warmup_lr: 1e-5            optimizer.warmup_learning_rate = 1e-5
  schedular.warmup_epochs: 4           optimizer.warmup_steps = 400        units of 100 iterations (VQA.py)
  momentum: 0.995                      teacher.momentum = 0.995            models/model_vqa.py
  max_length: 25                       data.max_tokens = 25                VQA.py, in training
  max_ques_words: 30                   data.max_words = 30                 dataset/vqa_dataset.py, in training
  max_ques_words of test: 50           eval.max_words = 50                 dataset/vqa_dataset.py
  scale: (0.5, 1.0)                    data.crop_scale = (0.5, 1.0)        dataset/__init__.py

- In evaluation questions are not cut to a number of tokens there; here to 64, enough for 50 words of a piece each.
- Answers are left as they are, as there, and cut to `vqa.answer_tokens`, 10 with [CLS] and [SEP]; there they are not
  cut.
- The first token counts twice in an answer's score, as there (`vqa.first_token_twice`).
- The answers to choose from are those of ALBEF's `answer_list.json` where it was given to `cbalign data build`, else
  those that are agreed on for at least 9 questions.
- The mean rate over the run is the recipe's, 1.16e-5 at 5,000 steps an epoch.
- The recipe ran without the teacher's soft targets until July 2022, when the published figures were out; they are on
  here.
- Distillation takes its softmax over the vocabulary; TCL's still takes it over the sequence.
- Training is on train, val and Visual Genome's questions, as there; the last checkpoint is used.

`paper/vqa_val` trains on `train` only and evaluates on `val`. Written for 8 accelerators; not yet run at full size.
"""

from cbalign.config import base_config


def get_config():
    c = base_config()
    c.task = "vqa"
    c.init.weights = ("runs/paper/pretrain",)
    c.data.name = "vqa_v2"
    c.data.plain_rgb = True  # as published
    c.data.train_split = "train+val+vg"
    c.data.image_size = 384
    c.data.crop_scale = (0.5, 1.0)
    c.data.second_view = False
    c.optimizer.schedule = "albef"
    c.optimizer.learning_rate = 2e-5
    c.optimizer.final_learning_rate = 1e-6
    c.optimizer.warmup_steps = 400
    c.optimizer.groups = ((".*/(bias|scale)", 1.0, 0.0), (".*", 1.0, 1.0))
    c.train.batch_size = 256
    c.train.epochs = 8
    c.eval.splits = ()  # val is used for training; the answers of test are not public
    c.eval.batch_size = 128
    c.eval.max_tokens = 64
    c.eval.max_words = 50
    return c
