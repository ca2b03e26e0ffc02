"""Draws dashboards from the answers of a live Prometheus: layout and data, not Grafana's own look."""

import re
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

# Inches of a column and of a row of Grafana's grid.
COLUMN, ROW = 0.62, 0.4
INK, MUTED, PAPER, CARD, GRID = "#d8d9da", "#8e8e93", "#111217", "#181b1f", "#2c3235"
UNITS = {"s": (1, " s"), "bytes": (1 / 2**20, " MiB"), "percentunit": (100, " %"), "reqps": (1, " /s")}
COLORS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#ffa6b0", "#c0d8ff"]
LEGEND = 6


def draw(prometheus, panels, expanded, seconds, folder):
    folder.mkdir(parents=True, exist_ok=True)
    # The same for all panels, because drawing takes a while.
    end = time.time()
    boards = {}
    for name, board, panel in panels:
        boards.setdefault(name, (board, []))[1].append(panel)
    for name, (board, shown) in boards.items():
        figure = Figure(board, shown, end)
        for panel in shown:
            figure.place(panel, prometheus, expanded, seconds)
        figure.save(folder / f"{name}.png")


class Figure:
    def __init__(self, board, shown, end):
        self.end = end
        # One more row for the title.
        self.rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in shown) + 1.5
        self.figure = plt.figure(figsize=(24 * COLUMN, self.rows * ROW), facecolor=PAPER)
        self.figure.text(0.01, 1 - 0.35 / self.rows, board["title"], color=INK, size=15, va="top")
        for row in (p for p in board["panels"] if p["type"] == "row"):
            self.figure.text(0.01, self.height(row["gridPos"]["y"] + 0.75), row["title"], color=MUTED, size=11)

    def height(self, row):
        return 1 - (row + 1.5) / self.rows

    def box(self, at, left, right, top, bottom):
        """Returns the panel's rectangle with these margins in grid cells."""
        width = (at["w"] - left - right) / 24
        low = self.height(at["y"] + at["h"] - bottom)
        return [(at["x"] + left) / 24, low, width, (at["h"] - top - bottom) / self.rows]

    def place(self, panel, prometheus, expanded, seconds):
        at = panel["gridPos"]
        card = self.figure.add_axes(self.box(at, 0.1, 0.1, 0.1, 0.1), facecolor=CARD, xticks=[], yticks=[])
        card.spines[:].set_color(GRID)
        card.annotate(panel["title"], (0, 1), xytext=(5, -4), textcoords="offset points", xycoords="axes fraction",
                      color=INK, size=9.5, va="top")
        scale, suffix = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], (1, ""))
        if panel["type"] == "stat":
            found = prometheus.now(expanded(panel["targets"][0]["expr"]))
            value = float(found[0]["value"][1]) * scale if found else float("nan")
            text = f"{value:,.{panel['fieldConfig']['defaults'].get('decimals', 2 if value % 1 else 0)}f}{suffix}"
            card.text(0.5, 0.42, text, color=COLORS[0], size=19, ha="center", va="center")
            return
        graph = self.figure.add_axes(self.box(at, 1.2, 0.35, 1.0, 2.2), facecolor=CARD)
        graph.spines[:].set_visible(False)
        graph.tick_params(colors=MUTED, labelsize=7.5, length=0)
        graph.grid(color=GRID, lw=0.6)
        lines = self.lines(panel, prometheus, expanded, seconds, scale)
        # As in a legend that is sorted by the greatest value.
        lines.sort(key=lambda line: -max(line[1][1], default=0))
        for number, (label, (times, values)) in enumerate(lines):
            color = COLORS[number % len(COLORS)]
            graph.plot(times, values, lw=1.3, color=color, label=label if number < LEGEND else None)
        top = max((max(values, default=0) for _, (_, values) in lines), default=0)
        graph.set_ylim(0, top * 1.12 or 1)
        graph.set_xlim(self.end - seconds, self.end)
        graph.locator_params(nbins=4)
        graph.xaxis.set_major_formatter(lambda at, _: time.strftime("%H:%M:%S", time.gmtime(at)))
        graph.yaxis.set_major_formatter(lambda value, _: f"{value:g}{suffix}")
        more = len(lines) - LEGEND
        handles, labels = graph.get_legend_handles_labels()
        legend = card.legend(handles, labels, fontsize=7, frameon=False, labelcolor=INK, loc="lower left", ncols=2,
                             columnspacing=1.0, handlelength=1.0, borderpad=0.2, labelspacing=0.25)
        legend.set_in_layout(False)
        if more > 0:
            card.annotate(f"and {more} more", (1, 1), xytext=(-5, -5), textcoords="offset points",
                          xycoords="axes fraction", color=MUTED, size=7, ha="right", va="top")

    def lines(self, panel, prometheus, expanded, seconds, scale):
        """Returns each series as its legend, its times and its values; without gaps for NaN."""
        lines = []
        for target in panel["targets"]:
            for series in prometheus.lately(expanded(target["expr"]), seconds, self.end):
                points = [(float(t), float(v) * scale) for t, v in series["values"] if v not in ("NaN", "+Inf")]
                label = re.sub(r"{{(\w+)}}", lambda name: series["metric"].get(name[1], ""), target["legendFormat"])
                label = label if len(label) < 34 else label[:32] + "…"
                lines.append((label, ([t for t, _ in points], [v for _, v in points])))
        return lines

    def save(self, path):
        self.figure.savefig(path, dpi=80, facecolor=PAPER)
        plt.close(self.figure)
        # A palette takes a third of the bytes.
        Image.open(path).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
