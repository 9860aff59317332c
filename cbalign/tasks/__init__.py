"""Tasks: each says what the training loop needs of it; `config.task` names one."""

from cbalign.tasks.nlvr2 import Nlvr2, TextAssignment
from cbalign.tasks.pretrain import Pretrain
from cbalign.tasks.retrieval import Retrieval
from cbalign.tasks.snli_ve import SnliVe
from cbalign.tasks.vqa import Vqa

TASKS = {"pretrain": Pretrain, "retrieval": Retrieval, "vqa": Vqa, "nlvr2_pretrain": TextAssignment, "nlvr2": Nlvr2, "snli_ve": SnliVe}
