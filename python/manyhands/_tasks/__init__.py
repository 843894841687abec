"""Tasks: coroutines that the loop runs, in groups that wait for them, in scopes that cancel them.

| file | noun |
|---|---|
| `_scope` | cancel scopes and deadlines |
| `_group` | task groups and handles |
| `_run` | a program of tasks, from start to end |
| `_sleep` | checkpoints and time |
| `_event` | an event |
| `_lock` | locks, semaphores, limiters, conditions |
| `_memory` | objects from task to task |
| `_job` | blocking calls from tasks; `manyhands.from_thread` is the way back |
| `_signal` | signals |

The compiled half holds a task's word, a group's members, a scope's flags and the one way to wait (`_core.Wait`); what an
error does, what an exit waits for and what it swallows is decided here. The meaning is trio's and AnyIO's.
"""
