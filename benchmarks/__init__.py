"""Figures, one question a file. `python -m benchmarks --help` runs them; README.md says how they are made.

Every question is a module with two names: `QUESTION`, one sentence, and `measure(plan) -> Report`. What they share:

* `_machine`: what a figure belongs to (machine, interpreter, versions, commit);
* `_native`: the two C programs, compiled on first use;
* `_process`: servers, loads and measured children, each a process of its own on cores of its own;
* `_report`: samples, their statistics, targets, the printed table and the JSON file;
* `echo_servers`: the servers written in Python, a program of its own.
"""
