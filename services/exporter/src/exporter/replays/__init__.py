"""
Replays: events of a range that an export has delivered, written once more into a folder of their own.

Configuration: `replays.<app>` in `CONFIG`, signed, holds all replays of an app; each is changed by a check of the
revision, so of two at once one is started. Implementation: a replay is a job of `exporter.exports` with an end; its
progress, claim, runs and windows are those of an export of the name `<export>=<replay>`. Considerations: `EVENTS` holds
72 h; older events can only be taken from the lake, in its own form.
"""
