"""The shape of every JSON document that colod prints, in one place.

What makes the documents is annotated with these types, `colod.cli.json_reference` writes
docs/json.md and docs/json-schema.json from them, and tests hold what is printed against them.
Within a version of the schema keys are added, but never removed, renamed or given another type.
None is what is not known, or is not there. Names end with their unit.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

# --- what a host and its protections are like -----------------------------------------------------


class Automation(TypedDict):
    """Whether the hosts take over and pair again by themselves."""

    paused: bool
    operator: str | None
    """Who paused it."""
    reason: str | None
    since_unix_s: float | None
    peer_paused: bool | None
    """Whether it is paused on the other host; null until that has said."""


class SelfFence(TypedDict):
    """The watchdog that resets this host if it can neither ask nor stop its guest."""

    kind: str
    """`watchdog`, or `simulated`: one that resets nothing."""
    device: str
    required: bool
    """Whether the other host is let take over only while it is armed."""
    identity: str | None
    """The driver's name for it."""
    active: bool
    timeout_s: float | None
    margin_s: float | None
    """Time until it resets the host unless it is fed."""
    trouble: str | None
    """Why it is not armed or not fed."""


class Signal(TypedDict):
    """One signal that the other host is heard by; its contact is lost when all are silent."""

    name: str
    """`session`, or the address of the other daemon."""
    silent: bool
    heard_age_s: float | None
    no_carrier_s: float | None
    """For how long its network has had no link."""


class Lag(TypedDict):
    """How far the replica lags; all null unless it was measured."""

    lag_s: float | None
    """Age of the oldest guest state that the other host does not hold."""
    lag_epochs: int | None
    lag_bytes: int | None


class Gate(TypedDict):
    """The gate that holds a guest's output; see output-gate.md."""

    phase: str
    """`open`, `closing`, `holding`, `lost`, `opening`, `opened`."""
    protects: bool
    sound_from_epoch: int | None
    released_epoch: int
    barriers: int
    skipped: dict[str, int]
    """Count by reason: `not_locked`, `unacknowledged`, `close_failed`."""
    held_packets: int
    held_bytes: int
    dropped_packets: int
    hold_s: float | None
    """The longest hold of the epoch that was released last."""
    uncovered: list[str]
    """Interfaces that are not held."""
    not_in_replica: list[str]
    """Interfaces that the guest got since the pairing began: a takeover would leave them behind."""
    error: str | None


class Comparison(TypedDict):
    """How the output of two running copies is compared; see colo.md."""

    phase: str | None
    """Primary: `passing`, `comparing`. Secondary: `locked`, `handed_over`. Null before that."""
    checkpoints: int
    checkpoints_per_s: float
    """Over the last ten seconds."""
    made: dict[str, int]
    """Checkpoints by what they were asked for."""
    unasked: int
    """Checkpoints that libxl made by its own clock."""
    held_frames: int
    held_bytes: int
    connections: int
    primary_frames: int
    released_frames: int
    lost_frames: int
    secondary_frames: int
    matched_frames: int
    stale_frames: int
    """Of the secondary, that proved nothing."""
    uncut: int
    """Checkpoints at which its frames could not be told from older ones."""
    busy_s: float
    input_lost_frames: int
    """For the secondary's copy: it diverges by them."""
    trouble: str | None


class Progress(TypedDict):
    """What a session has done and measured."""

    sealed_epoch: int
    acked_epoch: int
    stream_bytes: int
    unacked_bytes: int
    first_copy_pages: int
    domain_pages: int | None
    epoch_pages: int
    """Of the last epoch, as the next four."""
    epoch_bytes: int
    pause_s: float | None
    """For how long the guest was suspended."""
    copy_s: float | None
    """Until its state was read."""
    ack_wait_s: float | None
    """Until the other host had it."""
    last_ack_age_s: float | None
    peer_heard_age_s: float | None
    rtt_s: float | None
    epoch_wire_bytes: int
    """Of the last acknowledged epoch on the link; with deltas, the next three are its pages."""
    epoch_pages_same: int
    epoch_pages_delta: int
    epoch_pages_raw: int
    staged_bytes: int
    """What is in the bounded memory that an epoch is read into, which is `staging_bytes` large."""
    staged_peak_bytes: int
    staging_bytes: int
    stalled_s: float
    """For how long in all libxl had to wait because that memory was full."""
    suspended_s: float | None
    """For how long the guest has been suspended for the checkpoint that is being read."""
    waits_for: str | None
    """What the reading waits for now: `link`, `gate`, `switchover`, `xl`."""


class Link(TypedDict):
    """The connection between the guest's two sessions, as this host sees it."""

    dscp: int | None
    """How the kernel says that it marks this host's packets; null where that is not known."""
    rate_bytes_per_s: int | None
    """What this host's end is held to; null: as fast as it goes."""
    rate_by: str | None
    """By whom: `kernel` or `session`."""
    may_resume: bool
    """Whether both sessions mend a broken link; false: its first break ends the pairing."""
    path: str | None
    """Of a link that may be mended, the path that carries it: `primary` or `backup`; null while it
    is broken."""
    resumed: int
    """How often another connection took over."""
    broken_by: str | None
    """What became of the last connection; stays once the link is mended."""
    broken_s: float | None
    """For how long there has been no connection; null while there is one."""
    kept_bytes: int
    """What is kept to be sent again, for the other session has not said yet that it has come."""


class Protection(TypedDict):
    """A guest that is protected, as this host sees it."""

    guest: str
    role: Literal["primary", "secondary"] | None
    peer: str
    state: str
    """As in failover.md."""
    output_held: bool
    """Whether it is known that nothing leaves which a failover could take back: false, too, where
    the state was decided more than 15 s ago."""
    cause: str
    advice: str
    """What to do; empty when nothing is wanted."""
    since_unix_s: float | None
    decided_age_s: float | None
    """How old the facts are that the state was decided on; a second, unless something hangs."""
    owner: str | None
    generation: int
    pairing: str | None
    mode: str
    disks: str
    """`none`, `shared`, `external`."""
    interval_ms: int
    replica: str | None
    """`none`, `syncing`, `following`, `frozen`, `lost`."""
    promotable: bool
    """Whether the replica here may be promoted, as far as is known."""
    guest_domain: str | None
    """Whether its domain here was seen `running`, `paused`, `suspended` or `absent`."""
    witness: str | None
    peer_contact: str | None
    signals: list[Signal]
    standstill_s: float | None
    """For how long a guest that belongs here has stood still, 0 while it runs."""
    standstill_cause: str | None
    """Why; null up to `detection.standstill_s`."""
    lag: Lag
    gate: Gate | None
    """Null without an output gate."""
    comparison: Comparison | None
    """Null but in COLO."""
    link: Link | None
    """Null before the sessions were connected."""
    progress: Progress | None
    """Null without a session."""


class Change(TypedDict):
    """A change of a guest's state on one host."""

    unix_s: float
    host: str
    guest: str
    from_state: str | None
    to_state: str
    cause: str
    generation: int
    epoch: int | None


class Drill(TypedDict):
    """A drill; null is what was not measured. See drills.md."""

    id: str
    unix_s: float
    """When it was begun."""
    host: str
    guest: str
    kind: str
    """`isolated`, `secondary`, `live`."""
    epoch: int | None
    """Of kind `live`: from which the guest went on at the other host."""
    generation: int
    """Of the ownership record; of kind `live`, before anything was ordered."""
    verdict: str
    """`passed`, `failed`, `not checked`, `aborted`."""
    detail: str
    operator: str
    check: str | None
    """The command that asked the guest: once, or, of kind `live`, again and again."""
    network: str
    """The bridge, or `none`."""
    rpo_s: float | None
    """How old the epoch's acknowledgement was when the image was begun, or the takeover decided."""
    image_s: float | None
    restore_s: float | None
    start_s: float | None
    check_s: float | None
    rto_s: float | None
    """From its begin until the guest was found to work, or ran, where nothing was checked; of kind
    `live` from the order until it was seen to run."""
    is_kept: bool
    discard_s: float | None
    """Of kind `secondary`: until nothing was left of the old replica."""
    unprotected_s: float | None
    """Of kinds `secondary` and `live`: from the order, or the decision, until the guest was
    PROTECTED again."""
    protect_s: float | None
    """Of the same: from the order to pair anew, or from when it ran, until then."""
    as_if_host_died: bool | None
    """Of kind `live`, as all that follows: whether it was taken over without asking its primary."""
    decide_s: float | None
    """From the order until the record named the other host."""
    outage_s: float | None
    """The longest time for which the probe had no answer, over the failover."""
    failback_s: float | None
    """On the way back: from the order until the guest was seen to run."""
    failback_outage_s: float | None
    """The longest time for which the probe had no answer then."""
    failback_protect_s: float | None
    """From when it ran until it was PROTECTED."""
    end_owner: str | None
    """Who owned the guest at the end."""
    end_generation: int | None


class GuestLag(TypedDict):
    """How far the replica of one guest lags, and what the last epoch took its primary."""

    guest: str
    state: str
    lag_s: float | None
    lag_epochs: int | None
    lag_bytes: int | None
    pause_s: float | None
    copy_s: float | None
    ack_wait_s: float | None
    hold_s: float | None
    """The longest that a packet waited."""
    wire_bytes: int | None


class GuestLook(GuestLag):
    """One guest at one look; of a secondary only the lag is known."""

    role: Literal["primary", "secondary"] | None
    wire_bytes_per_s: float | None
    held_packets: int | None
    held_bytes: int | None


# --- what each command prints ---------------------------------------------------------------------


class StatusDocument(TypedDict):
    """All protections of a host, or one; with `--watch` one object a line."""

    host: str
    simulated: bool
    """Whether this is the simulated Xen."""
    automation: Automation
    protections: list[Protection]
    self_fence: SelfFence | None
    """Null without a watchdog."""


class ProtectDocument(TypedDict):
    """What was begun."""

    guest: str
    dry_run: bool
    plan: list[str]
    status: Protection | None
    """Null unless it was waited for."""


class UnprotectDocument(TypedDict):
    """A protection has ended."""

    guest: str
    protected: Literal[False]


class SuspendDocument(TypedDict):
    """A guest is not replicated until it is resumed."""

    guest: str
    suspended: Literal[True]


class CheckpointNowDocument(TypedDict):
    """Two running copies were made equal."""

    guest: str
    checkpoints: int
    """Of this pairing, so far."""


class ResumeDocument(TypedDict):
    """A guest is replicated again."""

    guest: str
    suspended: Literal[False]
    status: Protection | None
    """Null unless it was waited for."""


class LagDocument(TypedDict):
    """The guests whose primary this host is; with `--watch` one object a line."""

    host: str
    simulated: bool
    guests: list[GuestLag]


class TopDocument(TypedDict):
    """One look, on one line."""

    host: str
    simulated: bool
    unix_s: float
    interval_s: float
    guests: list[GuestLook]


class HandoverDocument(TypedDict):
    """Who owns a guest has changed."""

    guest: str
    dry_run: bool
    plan: list[str]
    generation: int | None
    """Null in a dry run."""


class FailbackDocument(HandoverDocument):
    """A guest was given back."""

    to: str
    """The former owner."""
    owned_until_unix_s: float


class FenceConfirmDocument(TypedDict):
    """An operator's word was taken."""

    guest: str
    given_to: list[str]
    """`fencing`, `witness`, or both."""


class PauseDocument(TypedDict):
    """How automation is from now on."""

    paused: bool
    here_only: bool
    peer_error: str | None
    """Why the other host was not told."""


class DrainDocument(TypedDict):
    """The sessions that were ended."""

    ended: list[str]
    given_away: list[str]


class DrillDocument(TypedDict):
    """A drill that was carried out or foretold."""

    guest: str
    dry_run: bool
    plan: list[str]
    drill: Drill | None
    """Null in a dry run."""


class DrillsDocument(TypedDict):
    """The drills on this host, the newest last."""

    drills: list[Drill]


class KeptImage(TypedDict):
    """What is kept of one replica, so that images of it can be written."""

    guest: str
    is_kept: bool
    trouble: str
    """Why not."""
    advice: str
    epoch: int | None
    """The newest of which an image could be written."""
    epoch_age_s: float | None
    image_bytes: int | None


class ExportedImage(TypedDict):
    """An image that was written."""

    name: str
    size_bytes: int
    unix_s: float


class ScheduledGuest(TypedDict):
    """How the schedule stands for one replica."""

    guest: str
    trouble: str
    """Why its next image could not be written; empty where all is well."""
    last_unix_s: float | None
    """When its newest image was begun."""


class ImageSchedule(TypedDict):
    """Images that are written every so often without being asked."""

    every_s: float
    keep_images: int
    """How many are kept of each guest."""
    limit_bytes: int
    """The most that all of them may take."""
    used_bytes: int
    directory: str
    guests: list[ScheduledGuest]
    images: list[ExportedImage]
    """Oldest first; also of guests that have no replica here any more."""


class CheckpointsDocument(TypedDict):
    """Of which replicas an image can be written, and which were."""

    directory: str | None
    kept: list[KeptImage]
    exported: list[ExportedImage]
    """What operators have asked for."""
    schedule: ImageSchedule | None
    """Null where none is configured."""


class ExportDocument(TypedDict):
    """An image that was written or foretold."""

    guest: str
    dry_run: bool
    plan: list[str]
    path: str
    epoch: int
    epoch_age_s: float | None
    """Since its acknowledgement, when it was begun."""
    bytes: int | None


class KeepOrder(TypedDict):
    """An operator's order that a copy be kept."""

    operator: str
    reason: str
    unix_s: float


class QuarantinedCopy(TypedDict):
    """A copy of a guest that another generation of ownership has left on this host."""

    domain: str
    """Its present name."""
    guest: str
    kind: str
    """`lost`: under the guest's own name, as it stopped. `aside`: put aside under another name.
    `stranger`: not colod's."""
    generation: int | None
    """Of the ownership record by which this host lost the guest: the copy is of an earlier one."""
    why: str
    since_unix_s: float | None
    memory_bytes: int
    domain_state: str
    """`running`, `paused`, `suspended`, `shutdown`, `crashed`, `dying`."""
    keep: KeepOrder | None
    """Null unless somebody has ordered it."""
    refusal: str | None
    """Why `quarantine discard` would refuse it, as far as is known; null where nothing is."""
    advice: str


class QuarantineDocument(TypedDict):
    """The copies on this host that another generation has left."""

    copies: list[QuarantinedCopy]


class QuarantineDiscardDocument(TypedDict):
    """A copy that was thrown away, as it was before; in a dry run it is still there."""

    dry_run: bool
    plan: list[str]
    copy: QuarantinedCopy


class QuarantineKeepDocument(TypedDict):
    """A copy, and the order that holds for it now."""

    copy: QuarantinedCopy


class HistoryDocument(TypedDict):
    """Changes of state, the newest last."""

    entries: list[Change]


class EventDocument(TypedDict):
    """One event, on one line; of the last four one is set, the others are null."""

    unix_s: float
    """When; of a drill, when it was begun."""
    host: str
    guest: str | None
    """Null for the host as a whole."""
    change: Change | None
    drill: Drill | None
    automation: Automation | None
    """How it is from now on."""
    daemon_reachable: bool | None
    """With `--follow`: false when the daemon goes away, true when it is back."""


class Finding(TypedDict):
    """One thing that was examined."""

    severity: str
    """`ok`, `info` (missing or not known: matters only to who wants it), `warning`, `error`."""
    subject: str
    text: str
    advice: str


class DoctorDocument(TypedDict):
    """What was examined."""

    findings: list[Finding]


class ColoConfigFile(TypedDict):
    """The xl configuration of a guest for one host."""

    role: str
    """`primary` or `secondary`, as things are now."""
    host: str
    path: str
    """Where a guest that reboots is started from on that host; nothing was written there."""
    text: str


class ColoConfigDocument(TypedDict):
    """A guest's xl configurations with the keys of COLO."""

    guest: str
    primary_address: str
    secondary_address: str
    ports: dict[str, int]
    """TCP port by its use: `mirror`, `primary`, `out`, `secondary`, `notify`, `disk`."""
    notes: list[str]
    """What has to be so besides."""
    files: list[ColoConfigFile]


class ConfigCheckDocument(TypedDict):
    """A valid configuration."""

    files: list[str]
    time_budget: list[str]
    warnings: list[str]
    """What keeps no daemon from starting, as a file with passwords that others may read."""


class Setting(TypedDict):
    """One value of the configuration."""

    path: str
    value: object
    """As TOML has it; `(hidden)` for a secret."""
    origin: str
    """A file, or `default`."""


class ConfigShowDocument(TypedDict):
    """Every value."""

    values: list[Setting]


class CertificateDocument(TypedDict):
    """A certificate that was made."""

    certificate: str
    key: str
    expires_unix_s: float


class StreamError(TypedDict):
    """What is wrong with a stream."""

    code: str
    message: str
    offset: int


class StreamEpoch(TypedDict):
    """One epoch of a stream."""

    epoch: int
    offset: int
    bytes: int
    pages: int
    pfns: int
    records: int
    sealed: bool


class StreamDocument(TypedDict):
    """What a migration stream holds; see stream.md."""

    name: str | None
    type: str | None
    """`pv`, `pvh`, `hvm`."""
    xen_version: str | None
    libxl_version: int | None
    libxc_version: int | None
    byte_order: str | None
    converted_from_legacy: bool
    bytes: int
    ending: str | None
    """`complete`, `truncated`, `invalid`."""
    truncated_at: int | None
    error: StreamError | None
    whole_epochs: int
    records: dict[str, int]
    """Count by kind."""
    epochs: list[StreamEpoch]


class Daemon(TypedDict):
    """The daemon on this host."""

    software: str
    host: str
    version_min: int
    """The oldest version of the protocol that it speaks."""
    version_max: int
    simulated: bool


class VersionDocument(TypedDict):
    """The versions of both sides."""

    colodctl: str
    daemon: Daemon | None
    """Null when none answers."""


class Failure(TypedDict):
    """Why a command failed."""

    code: str
    """Stable, for programs."""
    message: str
    advice: str
    """What to do; may be empty."""
    exit: int
    """The exit status."""


class ErrorDocument(TypedDict):
    """On standard error, instead of a document on standard output."""

    error: Failure
