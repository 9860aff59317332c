"""Tasks by name; `config.task` names one."""

from cbalign.tasks.base import Evaluation, Split, Task
from cbalign.tasks.nlvr2 import Nlvr2, TextAssignment
from cbalign.tasks.pretrain import Pretrain
from cbalign.tasks.retrieval import Retrieval
from cbalign.tasks.snli_ve import SnliVe
from cbalign.tasks.vqa import Vqa

TASKS: dict[str, type[Task]] = {task.name: task for task in (Pretrain, Retrieval, Vqa, TextAssignment, Nlvr2, SnliVe)}

__all__ = ["TASKS", "Evaluation", "Split", "Task"]
