"""The method of compressed-context Algorithm Distillation: what a policy remembers, and how it learns to.

Shapes are written in one legend everywhere: `b` batch, `t` time, `s` segment, `k` latents, `d` width, `h` heads,
`a` actions, `o` observation features, `e` environments stepped together, `w` slots of the window.

Words: a *transition* is (o, a, r, o', terminated, truncated); a *history* is a learner's whole life on one task; the
*window* is what the backbone may see at once; *latents* are compressed memory; a *write* is one compression and the
*segment* is what it folds in.
"""
