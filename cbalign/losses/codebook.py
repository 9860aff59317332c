"""Losses of the representation codebook: L_code = L_ot + L_i2p + L_t2p."""

import jax
import jax.numpy as jnp

from cbalign.losses.cross_entropy import soft_cross_entropy
from cbalign.losses.transport import cosine_cost, cosine_similarity


def code_logits(features, codes, *, temperature):
    """Logits of the code probabilities P = softmax(z C^T / tau_c).

    Args:
      features: [n, d]; L2-normalised here.
      codes: [K, d]; L2-normalised here.
      temperature: tau_c.

    Returns:
      [n, K] float32; gradient reaches features, codes and temperature.
    """
    return cosine_similarity(features, codes) / temperature


def code_losses(
    *,
    student_image,
    student_text,
    teacher_image,
    teacher_text,
    codes,
    plan_image,
    plan_text,
    targets_image,
    targets_text,
    temperature,
):
    """The three terms of the codebook loss.

        ot  = <T_v, D_v> + <T_t, D_t>                D_ij = 1 - z_i^T c_j, z of the teacher; gradient reaches C only
        i2p = mean_i H(T-hat_t[i], softmax(z_v[i] C^T / tau_c))    the image predicts the codes of its text
        t2p = mean_i H(T-hat_v[i], softmax(z_t[i] C^T / tau_c))    the text predicts the codes of its image

    i2p and t2p are means over these b rows. ot is a sum over the n rows of the plans: with plans of some rows of the
    global batch, scaled so that the mean over all parts of it is their sum, all three are parts of means.

    Args:
      student_image, student_text: [b, d] student features of this device.
      teacher_image, teacher_text: [n, d] teacher features; no gradient.
      codes: [K, d] the codebook.
      plan_image, plan_text: [n, K] transport plans of the teacher features; no gradient.
      targets_image, targets_text: [b, K] rows of the row-normalised plans; no gradient.
      temperature: tau_c.

    Returns:
      {"ot", "i2p", "t2p"}: float32 scalars; i2p and t2p in nats (ln K for uniform predictions).
    """
    constant = jax.lax.stop_gradient

    def transport_cost(plan, teacher):
        return jnp.sum(constant(plan).astype(jnp.float32) * cosine_cost(constant(teacher), codes))

    def prediction_loss(student, targets):
        logits = code_logits(student, codes, temperature=temperature)
        return jnp.mean(soft_cross_entropy(logits, constant(targets)))

    return {
        "ot": transport_cost(plan_image, teacher_image) + transport_cost(plan_text, teacher_text),
        "i2p": prediction_loss(student_image, targets_text),
        "t2p": prediction_loss(student_text, targets_image),
    }
