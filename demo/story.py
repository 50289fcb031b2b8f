"""The sixteen steps. demo/__main__.py tells them, tests/e2e asserts them.

A step gets the world and a teller. It acts as its people would (clients through the SDK, administrators
through meshctl, rogues on the wire) and states its expectations; a step that raises has failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from demo.asking import answered_where_the_data_is, documents_are_taken_in, one_question_three_askers
from demo.attacking import foreign_control_is_kept_out, forged_certificate_fails, rogue_requests_are_refused
from demo.evidence import a_log_is_rewritten, receipts_prove_themselves
from demo.failing import (
    a_killed_node_is_survived,
    certificates_turn_over,
    france_is_withdrawn,
    the_board_goes_away,
)
from demo.placing import (
    confidential_is_balanced,
    narrowed_to_us_is_refused,
    public_goes_anywhere,
    special_category_stays,
)
from demo.telling import Teller
from demo.world import World

Step = Callable[[World, Teller], Awaitable[None]]

STEPS: tuple[tuple[str, Step], ...] = (
    ("Special-category data stays at home", special_category_stays),
    ("Confidential data: DE or FR, the less loaded one", confidential_is_balanced),
    ("Public data: anyone", public_goes_anywhere),
    ("A caller may narrow, never widen", narrowed_to_us_is_refused),
    ("Each node takes in its own documents", documents_are_taken_in),
    ("One question, three askers, three outcomes", one_question_three_askers),
    ("Answered where the data is", answered_where_the_data_is),
    ("Receipts that need nobody's word", receipts_prove_themselves),
    ("Sent past the placement: the receiving node refuses", rogue_requests_are_refused),
    ("A certificate in another authority's name", forged_certificate_fails),
    ("In Berlin, but controlled from the US", foreign_control_is_kept_out),
    ("A node is killed under two streams", a_killed_node_is_survived),
    ("An authority withdraws another", france_is_withdrawn),
    ("etcd is killed", the_board_goes_away),
    ("Certificates are renewed, a client is revoked", certificates_turn_over),
    ("An operator rewrites its log", a_log_is_rewritten),
)


async def tell_story(world: World, tell: Teller) -> None:
    """All steps in order; a failed one does not keep the next from being told."""
    for number, (title, step) in enumerate(STEPS, start=1):
        try:
            with tell.step(number, title):
                await step(world, tell)
        except Exception:
            continue
