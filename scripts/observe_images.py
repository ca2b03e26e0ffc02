"""Draws dashboards from the answers of a live Prometheus: layout and data, not Grafana's own look."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CELL = 0.62
INK, MUTED, PAPER, CARD = "#d8d9da", "#8e8e93", "#111217", "#181b1f"
UNITS = {"s": (1, " s"), "bytes": (1 / 2**20, " MiB"), "percentunit": (100, " %"), "reqps": (1, " /s")}


def draw(prometheus, panels, expanded, seconds, folder):
    folder.mkdir(parents=True, exist_ok=True)
    boards = {}
    for name, board, panel in panels:
        boards.setdefault(name, (board, []))[1].append(panel)
    for name, (board, shown) in boards.items():
        bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in shown)
        figure = plt.figure(figsize=(24 * CELL, (bottom + 1) * CELL / 2), facecolor=PAPER)
        figure.text(0.01, 1 - 0.2 / (bottom + 1), board["title"], color=INK, size=15, va="top")
        for panel in shown:
            place(figure, panel, bottom, prometheus, expanded, seconds)
        rows = [p for p in board["panels"] if p["type"] == "row"]
        for row in rows:
            y = 1 - (row["gridPos"]["y"] + 1.9) / (bottom + 1)
            figure.text(0.01, y, row["title"], color=MUTED, size=10)
        figure.savefig(folder / f"{name}.png", dpi=62, facecolor=PAPER)
        plt.close(figure)


def place(figure, panel, bottom, prometheus, expanded, seconds):
    at = panel["gridPos"]
    height = bottom + 1
    box = [at["x"] / 24 + 0.028, 1 - (at["y"] + at["h"] + 0.7) / height, at["w"] / 24 - 0.036, (at["h"] - 1.3) / height]
    axes = figure.add_axes(box, facecolor=CARD)
    axes.set_title(panel["title"], color=INK, size=9, loc="left")
    scale, suffix = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], (1, ""))
    for spine in axes.spines.values():
        spine.set_color("#2c3235")
    axes.tick_params(colors=MUTED, labelsize=7)
    if panel["type"] == "stat":
        found = prometheus.now(expanded(panel["targets"][0]["expr"]))
        value = float(found[0]["value"][1]) * scale if found else float("nan")
        text = f"{value:,.{2 if value % 1 else 0}f}{suffix}"
        axes.text(0.5, 0.5, text, color="#73bf69", size=17, ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for target in panel["targets"]:
        for series in prometheus.lately(expanded(target["expr"]), seconds):
            points = [(float(t), float(v) * scale) for t, v in series["values"]]
            start = points[0][0]
            label = target["legendFormat"]
            for key, value in series["metric"].items():
                label = label.replace("{{" + key + "}}", value)
            axes.plot([t - start for t, _ in points], [v for _, v in points], lw=1, label=label[:48])
    axes.set_ylim(bottom=0)
    axes.grid(color="#25282d", lw=0.5)
    axes.set_xticklabels([])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{suffix}")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:6], labels[:6], fontsize=6, frameon=False, labelcolor=MUTED, loc="upper left")
