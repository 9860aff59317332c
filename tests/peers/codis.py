"""The whole of CODIS's pretraining step in PyTorch, on the modules of `tests.peers.albef`, to compare and to race with.

Written from the method: teacher, queues, four contrastive terms with soft targets, codebook with IPOT plans, matching
with hard negatives, masked tokens with the teacher's soft targets, AdamW, moving average. Text and fusion layers are
transformers' modules; around their linear layers, attention is `scaled_dot_product_attention`. As in cbalign, an image's
keys and values are projected once and the last fusion layer runs on [CLS] or on the masked positions alone.

This module imports neither JAX nor cbalign: `cbalign.bench.peer_problem` describes the work in numpy.
"""

import contextlib
import types

import torch
from torch.nn import functional

from tests.peers.albef import Albef

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEMPERATURE_RANGE = (0.001, 0.5)
AVERAGED = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")


def _attend(block, queries, keys, values, mask, dropout):
    """Attention of one of BERT's attention modules with residual and norm; keys and values are projected."""
    heads = keys.shape[1]
    query = block.self.query(queries).unflatten(-1, (heads, -1)).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, dropout_p=dropout)
    return block.output(mixed.transpose(1, 2).flatten(2), queries)


def _keys_and_values(block, context, heads):
    return tuple(
        project(context).unflatten(-1, (heads, -1)).transpose(1, 2) for project in (block.self.key, block.self.value)
    )


def _soft_cross_entropy(logits, targets):
    return -(targets * functional.log_softmax(logits, -1)).sum(-1)


def _ipot_step(kernel, plan, sigma, rows, columns):
    scaled = kernel * plan
    delta = rows / (scaled @ sigma)
    sigma = columns / (delta @ scaled)
    return delta[:, None] * scaled * sigma, sigma


class Codis:
    """The state of a run and its step.

    Args:
      problem: see `cbalign.bench.peer_problem.describe`.
      device: PyTorch's name of one.
      compiled: run teacher, losses and transport through `torch.compile`.
    """

    def __init__(self, problem, *, device="cpu", compiled=False):
        self.options = types.SimpleNamespace(**problem["options"])
        self.device, self.steps, o = torch.device(device), 0, self.options
        sizes = types.SimpleNamespace(**problem["sizes"])
        self.heads, self.text_depth, self.dropout = sizes.text_heads, sizes.text_depth, sizes.dropout
        described = types.SimpleNamespace(sizes=sizes, embed_dim=o.embed_dim)
        self.model = Albef(described, queue_size=o.queue_size).to(self.device)
        tensor = lambda x: torch.tensor(x, device=self.device)  # noqa: E731
        self.model.load_state_dict({name: tensor(x) for name, x in problem["state"].items()}, strict=True)
        self.pointer = int(problem["state"]["queue_ptr"][0])
        self.codes = torch.nn.Parameter(tensor(problem["codes"]))
        self.queue_ids = tensor(problem["queue_ids"])
        self.mean, self.std = (tensor(x)[:, None, None] for x in (MEAN, STD))
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.dropout
        self.model.train()
        for name in AVERAGED:
            teacher = getattr(self.model, name + "_m")
            teacher.requires_grad_(False).train(o.teacher_dropout)
        self._averages = tuple(
            [p for name in AVERAGED for p in getattr(self.model, name + mark).parameters()] for mark in ("_m", "")
        )
        self._optimizer(problem["groups"])
        wrap = torch.compile if compiled else lambda function: function
        self._teach, self._losses, self._ipot_step = (wrap(f) for f in (self._teach, self._losses, _ipot_step))

    def _optimizer(self, groups):
        """AdamW with a group for each (learning-rate factor, decay factor, names of parameters)."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad} | {"codes": self.codes}
        o, self.rates = self.options, [rate for rate, _, _ in groups]
        self.trained = list(named.values())
        lists = [
            {"params": [named.pop(name) for name in names if name in named], "weight_decay": decay * o.weight_decay}
            for _, decay, names in groups
        ]
        assert not named, f"parameters in no group: {sorted(named)}"
        self.optimizer = torch.optim.AdamW(lists, lr=0.0, betas=(o.b1, o.b2), eps=o.eps, fused=True)

    def _autocast(self):
        if self.options.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.options.dtype))

    def _image(self, pixels, mark=""):
        """uint8 [b, S, S, 3] -> (tokens, unit feature)."""
        x = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        with self._autocast():
            tokens = getattr(self.model, "visual_encoder" + mark)(x)
        return tokens, self._feature("vision_proj" + mark, tokens)

    def _feature(self, projection, tokens):
        return functional.normalize(getattr(self.model, projection)(tokens[:, 0].float()), dim=-1)

    def _bert(self, mark):
        """(BERT's layers, dropout of its attention)."""
        bert = getattr(self.model, "text_encoder" + mark).bert
        return bert, self.dropout if bert.training else 0.0

    def _text(self, ids, mark=""):
        bert, dropout = self._bert(mark)
        with self._autocast():
            x, mask = bert.embeddings(input_ids=ids), (ids != 0)[:, None, None]
            for layer in bert.encoder.layer[: self.text_depth]:
                x = _attend(layer.attention, x, *_keys_and_values(layer.attention, x, self.heads), mask, dropout)
                x = layer.output(layer.intermediate(x), x)
        return x

    def _context(self, tokens, mark=""):
        with self._autocast():
            layers = self._bert(mark)[0].encoder.layer[self.text_depth :]
            return [_keys_and_values(layer.crossattention, tokens, self.heads) for layer in layers]

    def _fuse(self, tokens, ids, contexts, positions, mark=""):
        """tokens [b, L, width], positions int [b, P] -> [b, P, width]."""
        bert, dropout = self._bert(mark)
        x, mask = tokens, (ids != 0)[:, None, None]
        layers = bert.encoder.layer[self.text_depth :]
        with self._autocast():
            for number, (layer, context) in enumerate(zip(layers, contexts, strict=True)):
                own = _keys_and_values(layer.attention, x, self.heads)
                if number == len(layers) - 1:
                    x = x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[-1]))
                x = _attend(layer.attention, x, *own, mask, dropout)
                x = _attend(layer.crossattention, x, *context, None, dropout)
                x = layer.output(layer.intermediate(x), x)
        return x

    def _predicted(self, fused, mark=""):
        with self._autocast():
            return getattr(self.model, "text_encoder" + mark).cls(fused).float()

    def _teach(self, batch, masked):
        """Features of the teacher and its logits at the masked positions."""
        tokens, image = self._image(batch.get("image_teacher", batch["image"]), "_m")
        text = self._feature("text_proj_m", self._text(batch["text"], "_m"))
        ids = masked["ids"]
        fused = self._fuse(self._text(ids, "_m"), ids, self._context(tokens, "_m"), masked["positions"], "_m")
        return {"image": image, "text": text, "logits": self._predicted(fused, "_m")}

    def _plan(self, features):
        o, cost = self.options, 1 - features @ functional.normalize(self.codes, dim=-1).T
        n, k = cost.shape
        rows, columns = cost.new_full((n,), 1 / n), cost.new_full((k,), 1 / k)
        kernel, plan, sigma = torch.exp(-cost / o.beta), torch.ones_like(cost), columns
        for _ in range(o.iterations):
            plan, sigma = self._ipot_step(kernel, plan, sigma, rows, columns)
        return plan

    def mask(self, ids):
        """BERT's masking with a fixed number of slots: {"ids" [b, L], "positions", "labels", "weights" [b, P]}."""
        o, draw = self.options, torch.rand(ids.shape, device=ids.device)
        special = (ids == o.pad) | (ids == o.cls) | (ids == o.sep)
        chosen = (draw < o.probability) & ~special
        order = torch.where(chosen, draw, 2.0).argsort(1)[:, : o.max_predictions]
        used = chosen.gather(1, order)
        kept = torch.zeros_like(chosen).scatter(1, order, used)
        action = torch.rand(ids.shape, device=ids.device)
        other = torch.where(action < 0.9, torch.randint_like(ids, o.vocab_size), ids)
        other = torch.where(action < 0.8, o.mask, other)
        slots = {"positions": order, "labels": ids.gather(1, order)}
        slots = {name: torch.where(used, x, 0) for name, x in slots.items()}
        return {"ids": torch.where(kept, other, ids), **slots, "weights": used.float()}

    def noise(self, rows):
        """Gumbel noise of the negatives, {"image", "text": [groups, group, group]}."""
        group = self.options.group_size
        shape = (rows // group, group, group)
        return {name: -torch.empty(shape, device=self.device).exponential_().log() for name in ("image", "text")}

    def _negatives(self, similarity, ids, noise):
        """Row of a negative for each row: the other modality's, of another id, of the same group."""
        group = self.options.group_size
        groups = len(ids) // group
        index = torch.arange(groups, device=ids.device)
        blocks = similarity.view(groups, group, groups, group)[index, :, index]
        grouped = ids.view(groups, group)
        differs = grouped[:, :, None] != grouped[:, None, :]
        some = differs.any(-1, keepdim=True)
        other = ~torch.eye(group, dtype=torch.bool, device=ids.device)
        logits = torch.where(some, blocks.masked_fill(~differs, -torch.inf), torch.zeros_like(blocks))
        logits = logits.masked_fill(~(some | other), -torch.inf)
        return ((logits + noise).argmax(-1) + group * index[:, None]).flatten()

    def _contrast(self, features, teacher, batch, queues, alpha, tau):
        o, ids = self.options, batch["id"]
        keys = {name: torch.cat([teacher[name], queues[name]]) for name in ("image", "text")}
        key_ids = torch.cat([ids, queues["ids"]])
        own = functional.one_hot(torch.arange(len(ids), device=ids.device), len(key_ids)).float()
        if o.joint_positives:
            own = torch.maximum(own, ((ids[:, None] == key_ids) & (key_ids >= 0)).float())
            own = own / own.sum(1, keepdim=True)
        terms = {}
        for query in ("image", "text"):
            for key in ("text", "image"):
                soft = functional.softmax(teacher[query] @ keys[key].T / tau.detach(), -1)
                targets = alpha * soft + (1 - alpha) * own
                logits = features[query] @ keys[key].T / tau
                terms[f"{query[0]}2{key[0]}"] = _soft_cross_entropy(logits, targets).mean()
        return terms | {"ica": sum(terms.values()) / 4}

    def _codes(self, features, teacher, plans, tau):
        codes = functional.normalize(self.codes, dim=-1)
        ot = sum((plans[name] * (1 - teacher[name] @ codes.T)).sum() for name in ("image", "text"))
        losses = {"ot": ot}
        for name, own, other in (("i2p", "image", "text"), ("t2p", "text", "image")):
            targets = plans[other] / plans[other].sum(1, keepdim=True)
            logits = features[own] @ codes.T / (self.options.code_temperature or tau)
            losses[name] = _soft_cross_entropy(logits, targets).mean()
        return losses | {"code": self.options.ot_weight * ot + losses["i2p"] + losses["t2p"]}

    def _matching(self, features, teacher, tokens, context, batch, noise, tau):
        ids, count = batch["text"], len(batch["text"])
        with torch.no_grad():
            of_text = self._negatives(features["image"] @ teacher["text"].T / tau, batch["id"], noise["text"])
            of_image = self._negatives(features["text"] @ teacher["image"].T / tau, batch["id"], noise["image"])
        ids, tokens = torch.cat([ids, ids, ids[of_text]]), torch.cat([tokens, tokens, tokens[of_text]])
        contexts = [tuple(torch.cat([x, x[of_image], x]) for x in pair) for pair in context]
        fused = self._fuse(tokens, ids, contexts, ids.new_zeros(3 * count, 1))
        labels = (torch.arange(3 * count, device=ids.device) < count).long()
        return functional.cross_entropy(self.model.itm_head(fused[:, 0].float()), labels)

    def _masked_tokens(self, context, masked, soft, alpha):
        ids, weights = masked["ids"], masked["weights"]
        logits = self._predicted(self._fuse(self._text(ids), ids, context, masked["positions"]))
        total = weights.sum().clamp(min=1)
        hard = functional.cross_entropy(logits.flatten(0, 1), masked["labels"].flatten(), reduction="none")
        hard = (weights.flatten() * hard).sum() / total
        soft = (weights * _soft_cross_entropy(logits, functional.softmax(soft, -1))).sum() / total
        return {"mlm": (1 - alpha) * hard + alpha * soft, "mlm_hard": hard, "mlm_soft": soft}

    def _losses(self, batch, masked, noise, teacher, plans, queues, alpha):
        o, tau = self.options, self.model.temp
        image_tokens, image = self._image(batch["image"])
        tokens = self._text(batch["text"])
        features = {"image": image, "text": self._feature("text_proj", tokens)}
        found = self._contrast(features, teacher, batch, queues, alpha, tau)
        found |= self._codes(features, teacher, plans, tau)
        context = self._context(image_tokens)
        found["itm"] = self._matching(features, teacher, tokens, context, batch, noise, tau)
        found |= self._masked_tokens(context, masked, teacher["logits"], alpha)
        return found | {"loss": sum(weight * found[name] for name, weight in o.loss_weights.items())}

    def step(self, batch, *, masked=None, noise=None):
        """One training step.

        Args:
          batch: {"image", "image_teacher" (optional) uint8 [b, S, S, 3], "text" [b, L], "id" [b]} in numpy.
          masked, noise: random draws in numpy, see `mask` and `noise`; None to draw them here.

        Returns:
          {metric: float}.
        """
        tensors = lambda tree: {  # noqa: E731
            name: torch.as_tensor(x, device=self.device).to(torch.long if x.dtype.kind == "i" else None)
            for name, x in tree.items()
        }
        o, batch = self.options, tensors(batch)
        alpha = torch.tensor(o.alphas[min(self.steps, len(o.alphas) - 1)], device=self.device)
        with torch.no_grad():
            torch._foreach_lerp_(*self._averages, 1 - o.momentum)
            masked = self.mask(batch["text"]) if masked is None else tensors(masked)
            noise = self.noise(len(batch["id"])) if noise is None else tensors(noise)
            teacher = self._teach(batch, masked)
            plans = {name: self._plan(teacher[name]) for name in ("image", "text")}
        queues = {"image": self.model.image_queue.T, "text": self.model.text_queue.T, "ids": self.queue_ids}
        metrics = self._losses(batch, masked, noise, teacher, plans, queues, alpha)
        metrics["loss"].backward()
        if o.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.trained, o.clip_norm)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * o.learning_rates[min(self.steps, len(o.learning_rates) - 1)]
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.model.temp.clamp_(*TEMPERATURE_RANGE)
            self._enqueue(teacher, batch["id"])
        self.steps += 1
        values = torch.stack([x.detach() for x in metrics.values()]).tolist()
        return dict(zip(metrics, values, strict=True))

    def _enqueue(self, teacher, ids):
        start, count = self.pointer, len(ids)
        self.model.image_queue[:, start : start + count] = teacher["image"].T
        self.model.text_queue[:, start : start + count] = teacher["text"].T
        self.queue_ids[start : start + count] = ids
        self.pointer = (start + count) % self.options.queue_size
        self.model.queue_ptr.fill_(self.pointer)
