"""The pool against its peers and against what the machine allows: `make bench`.

`docs/performance.md` tells how it measures. The parts:

- ``contenders``: the same few operations on snakepit, on each peer, and on the bare machine.
- ``measures``: what is measured, on any contender. Both run in a *host* process of their own
  (``host``), which is pinned as the mode says.
- ``turns`` and ``plan``: the runner. It starts hosts, lets them take turns, and collects samples.
- ``figures`` and ``report``: medians, ratios, goals; JSON, Markdown and a chart.
"""
