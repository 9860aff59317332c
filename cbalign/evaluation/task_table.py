"""Results of classification and question answering as a plain-text table."""


def format_task_table(result) -> str:
    """Accuracy in per cent: a title, rows for chance, the blind guess and the model, then the confusion and notes.

    Args:
      result: {"task", "data", "split": str, counts: int, "chance", "accuracy": {"overall", part: per cent or None} or
        None, "baselines": {"blind_guess": the same}, "confusion": [[count]] or absent, "notes": [str]}.

    Returns:
      str without a line break at the end.
    """
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in result.items()
                       if isinstance(value, int) and name != "answer_list")
    lines = [f"{result['task']} on {result['data']} {result['split']}: {counts}; accuracy in %"]
    accuracy = result["accuracy"]
    if accuracy:
        rows = [("chance", result["chance"]), ("blind guess", (result.get("baselines") or {}).get("blind_guess")),
                ("model", accuracy)]
        widths = [max(9, len(name) + 2) for name in accuracy]
        lines.append(" " * 11 + "".join(f"{name:>{width}}" for name, width in zip(accuracy, widths)))
        for label, values in rows:
            lines.append(f"{label:<11}" + "".join(
                f"{_figure(values, name):>{width}}" for name, width in zip(accuracy, widths)))
    if result.get("confusion"):
        lines.append("true class, and what it was taken for:")
        names = [name for name in accuracy if name not in ("overall", "consistency")]
        lines.append(" " * 15 + "".join(f"{name:>15}" for name in names))
        lines += [f"{name:<15}" + "".join(f"{count:>15,}" for count in row)
                  for name, row in zip(names, result["confusion"])]
    lines.extend(f"note: {note}" for note in result.get("notes") or ())
    return "\n".join(lines)


def _figure(values, name: str) -> str:
    value = (values or {}).get(name)
    return "-" if value is None else f"{value:.2f}"
