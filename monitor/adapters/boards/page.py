"""A board as one self-contained page: Grafana's grid of 24 columns, light and dark, wide and on a phone."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from monitor.adapters.boards.drawing import draw
from monitor.adapters.boards.gathering import Scene

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_STYLE: Final = """
:root{--page:#f3f4f7;--card:#fff;--ink:#1d2430;--soft:#667085;--rule:#e3e6ec;--track:#e8ebf0}
@media (prefers-color-scheme:dark){:root{--page:#101319;--card:#1a1f29;--ink:#e4e8ef;--soft:#98a2b3;--rule:#2b3240;
--track:#2b3240}}
:root[data-look=dark]{--page:#101319;--card:#1a1f29;--ink:#e4e8ef;--soft:#98a2b3;--rule:#2b3240;--track:#2b3240}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:13px/1.4 system-ui,sans-serif}
header{padding:14px 18px 4px}h1{font-size:20px;margin:0}header p{margin:2px 0;color:var(--soft);max-width:90ch}
nav{padding:4px 18px;color:var(--soft)}nav a{color:inherit;margin-right:12px}nav b{margin-right:12px;color:var(--ink)}
.events{padding:2px 18px;margin:0;list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;color:var(--soft)}
.events i{display:inline-block;width:8px;height:8px;border-radius:50%;margin-right:5px}
main{display:grid;grid-template-columns:repeat(24,minmax(0,1fr));grid-auto-rows:30px;gap:8px;padding:8px 18px 24px}
h2{font-size:13px;margin:0;align-self:end;color:var(--soft);text-transform:uppercase;letter-spacing:.05em}
section{background:var(--card);border:1px solid var(--rule);border-radius:6px;padding:6px 10px 8px;display:flex;
flex-direction:column;min-width:0;overflow:hidden}
h3{font-size:12.5px;font-weight:600;margin:0 0 2px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.chart{position:relative;flex:1;min-height:0;margin:6px 6px 18px 64px}.chart svg{position:absolute;inset:0;width:100%;
height:100%;overflow:hidden}
.ys span{position:absolute;right:100%;margin-right:6px;transform:translateY(-50%);white-space:nowrap}
.xs span{position:absolute;top:100%;margin-top:3px;transform:translateX(-50%)}.xs span:first-child{transform:none}
.xs span:last-child{transform:translateX(-100%)}.ys,.xs{font-size:10.5px;color:var(--soft)}
path{vector-effect:non-scaling-stroke}.grid{stroke:var(--rule);fill:none}.line{fill:none;stroke-width:1.6}
.limit{fill:none;stroke-width:1.2;stroke-dasharray:5 4}.event{fill:none;stroke-width:1;stroke-dasharray:2 2}
.legend{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:0 12px;font-size:11px;color:var(--soft);
max-height:50px;overflow:auto}.legend i{display:inline-block;width:10px;height:3px;margin:0 5px 3px 0;border-radius:2px}
.legend .still{opacity:.55}.legend b{color:var(--ink);font-weight:600}
.stat{position:relative;flex:1;display:flex;flex-wrap:wrap;align-items:center;justify-content:center;gap:10px;
min-height:0}.figure{font-size:26px;font-weight:650;line-height:1.1;text-align:center;z-index:1;white-space:nowrap}
.figure small{display:block;font-size:11px;color:var(--soft)}
.spark{position:absolute;inset:auto 0 0;width:100%;height:34%;opacity:.6}
.dial{flex:1;min-height:0;width:100%}.dial text{font-size:21px;font-weight:650}
.bars,.states,.scroll{flex:1;overflow:auto;display:flex;flex-direction:column;justify-content:space-evenly;gap:3px}
.bar{display:grid;grid-template-columns:minmax(70px,30%) 1fr 84px;gap:8px;align-items:center}
.bar span,.state span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.bar div{background:var(--track);
border-radius:3px}.bar i{display:block;height:13px;border-radius:3px}.bar b{text-align:right;white-space:nowrap}
.state{display:grid;grid-template-columns:minmax(70px,16%) 1fr;gap:8px;align-items:center;flex:1;max-height:34px;
min-height:15px}.state div{position:relative;height:80%;background:var(--track);border-radius:3px;overflow:hidden}
.state i{position:absolute;top:0;bottom:0;font-style:normal;font-size:11px;color:#fff;padding:0 6px;overflow:hidden;
display:flex;align-items:center}
.scroll{justify-content:flex-start}table{border-collapse:collapse;width:100%}th{color:var(--soft);font-weight:600}
td,th{text-align:left;padding:3px 6px;border-bottom:1px solid var(--rule)}td:last-child,th:last-child{text-align:right}
td:last-child{font-weight:650}.none,.trouble{margin:auto;color:var(--soft);text-align:center}.trouble{color:#d6453d}
footer{padding:0 18px 20px;color:var(--soft)}
@media (max-width:760px){main{display:flex;flex-direction:column;padding:8px}section{height:230px}
section.stat-panel{height:104px}section.gauge-panel{height:170px}h2{align-self:start;margin-top:8px}
header,nav,footer,.events{padding-left:10px;padding-right:10px}.xs span:nth-child(even){display:none}}
"""


def to_html(scene: Scene, boards: Sequence[tuple[str, str]], *, look: str = "") -> str:
    """Return the page of a board; `boards` are the uid and the title of all, for links between the pages."""
    value = scene.board.value
    shown = {id(one.panel): one for one in scene.panels}
    parts = []
    for panel in value.get("panels", []):
        style = _place(panel.get("gridPos", {}))
        if panel.get("type") == "row":
            parts.append(f'<h2 style="{style}">{escape(str(panel.get("title", "")))}</h2>')
            continue
        kind = "".join(letter for letter in str(panel.get("type", "")) if letter.isalpha() or letter == "-")
        about, title = escape(str(panel.get("description", ""))), escape(str(panel.get("title", "")))
        inside = draw(shown[id(panel)], scene)
        parts.append(
            f'<section class="{kind}-panel" style="{style}" title="{about}"><h3>{title}</h3>{inside}</section>'
        )
    title = escape(str(value.get("title", "")))
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(scene.end))
    page = (
        f'<!doctype html><html lang="en"{f" data-look={look}" if look in {"dark", "light"} else ""}>'
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><header><h1>{title}</h1>"
        f"<p>{escape(str(value.get('description', '')))}</p></header>{_between(scene, boards)}{_events(scene)}"
        f"<main>{''.join(parts)}</main><footer>{round((scene.end - scene.start) / 60)} minutes up to {day} UTC. "
        "Drawn from the board's file and live data; Grafana draws it in its own way.</footer></body></html>\n"
    )
    return _CONTROL.sub("\ufffd", page)


def _place(grid: Mapping[str, Any]) -> str:
    x, y, w, h = (int(grid.get(key, 0)) for key in "xywh")
    return f"grid-column:{x + 1}/span {max(w, 1)};grid-row:{y + 1}/span {max(h, 1)}"


def _between(scene: Scene, boards: Sequence[tuple[str, str]]) -> str:
    links = [
        f"<b>{escape(title)}</b>" if uid == scene.board.uid else f'<a href="{escape(uid)}.html">{escape(title)}</a>'
        for uid, title in boards
    ]
    return f"<nav>{''.join(links)}</nav>"


def _events(scene: Scene) -> str:
    seen: dict[str, str] = {}
    for event in scene.events:
        seen.setdefault(event.text, event.colour)
    items = "".join(
        f'<li><i style="background:{colour if colour.startswith("#") and colour[1:].isalnum() else "#888"}"></i>'
        f"{escape(text)}</li>"
        for text, colour in list(seen.items())[:12]
    )
    return f'<ul class="events">{items}</ul>' if items else ""
