"""Drawings for the report: small SVG in the page's own colours, so that they follow light and dark.

Every text that reaches a drawing is escaped here. Colours are the classes c0 to c7 of the page's style sheet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

COLOURS = 8

_WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 8, 34


@dataclass(frozen=True)
class Bar:
    """A value with its interval, if it has one."""

    name: str
    value: float
    interval: tuple[float, float] | None
    colour: int


@dataclass(frozen=True)
class Line:
    """A curve through points (x, y)."""

    points: tuple[tuple[float, float], ...]
    colour: int


@dataclass(frozen=True)
class Dot:
    """A point of a scatter plot; `hollow` tells a second kind of point from the first."""

    x: float
    y: float
    colour: int
    hollow: bool = False


def bar_chart(bars: Sequence[Bar], description: str) -> Markup:
    """Horizontal bars from 0, the value written beside each."""
    row, top = 34, 4
    height = top + row * len(bars) + 4
    longest = max([bar.interval[1] if bar.interval else bar.value for bar in bars] + [1e-9])
    scale = (_WIDTH - 70) / longest
    parts = [_bar(bar, top + row * place, scale) for place, bar in enumerate(bars)]
    return _figure(height, description, parts)


def line_chart(lines: Sequence[Line], x_name: str, y_name: str, description: str) -> Markup:
    """Curves over a common pair of axes, which start at the smallest values."""
    height = 220
    points = [point for line in lines for point in line.points]
    x_axis = _Axis.over([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.over([y for _, y in points], height - _BOTTOM, _TOP)
    parts = [*_grid(x_axis, y_axis, height, x_name, y_name)]
    for line in lines:
        places = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="line c{line.colour % COLOURS}" points="{places}"/>')
        if len(line.points) == 1:
            parts += [
                f'<circle class="dot c{line.colour % COLOURS}" cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="3"/>'
                for x, y in line.points
            ]
    return _figure(height, description, parts)


def scatter_plot(dots: Sequence[Dot], description: str) -> Markup:
    """Points without axes: only who lies near whom means something."""
    height = 300
    x_axis = _Axis.over([dot.x for dot in dots], 10, _WIDTH - 10)
    y_axis = _Axis.over([dot.y for dot in dots], height - 10, 10)
    parts = [
        f'<circle class="{"ring" if dot.hollow else "dot"} c{dot.colour % COLOURS}" '
        f'cx="{x_axis.at(dot.x):.1f}" cy="{y_axis.at(dot.y):.1f}" r="3"/>'
        for dot in dots
    ]
    return _figure(height, description, parts)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        low, high = min(values, default=0.0), max(values, default=1.0)
        return cls(low, high if high > low else low + (abs(low) or 1.0), start, end)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return [self.low + (self.high - self.low) * part / 4 for part in range(5)]


def _bar(bar: Bar, y: float, scale: float) -> str:
    end = max(bar.value, 0) * scale
    interval = ""
    if bar.interval is not None:
        low, high = (max(bound, 0) * scale for bound in bar.interval)
        interval = (
            f'<path class="whisker" d="M{low:.1f} {y + 22}H{high:.1f}M{low:.1f} {y + 18}v8M{high:.1f} {y + 18}v8"/>'
        )
        end = max(end, high)
    width = max(bar.value * scale, 1)
    return (
        f'<text x="0" y="{y + 11}">{escape(bar.name)}</text>'
        f'<rect class="bar c{bar.colour % COLOURS}" x="0" y="{y + 16}" width="{width:.1f}" height="12" rx="2"/>'
        f'{interval}<text class="value" x="{end + 6:.1f}" y="{y + 26}">{bar.value:.4f}</text>'
    )


def _grid(x_axis: _Axis, y_axis: _Axis, height: int, x_name: str, y_name: str) -> list[str]:
    rows = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_axis.at(y):.1f}" y2="{y_axis.at(y):.1f}"/>'
        f'<text class="tick" text-anchor="end" x="{_LEFT - 5}" y="{y_axis.at(y) + 3:.1f}">{_short(y)}</text>'
        for y in y_axis.ticks()
    ]
    columns = [
        f'<text class="tick" text-anchor="middle" x="{x_axis.at(x):.1f}" y="{height - _BOTTOM + 14}">{x:.0f}</text>'
        for x in sorted({round(x) for x in x_axis.ticks()})
        if x_axis.low <= x <= x_axis.high
    ]
    names = (
        f'<text class="tick" text-anchor="end" x="{_WIDTH - _RIGHT}" y="{height - 4}">{escape(x_name)}</text>'
        f'<text class="tick" x="0" y="{height - 4}">{escape(y_name)}</text>'
    )
    return [*rows, *columns, names]


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _figure(height: float, description: str, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    return Markup(  # each part has escaped the texts it holds
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(description)}">{body}</svg>'
    )
