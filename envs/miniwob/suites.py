"""Which pages there are. Names are those of the miniwob package (1.1.0)."""

from __future__ import annotations

from guiderail.agent.errors import SetupError


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DESKTOP = _names(
    """
ascending-numbers bisect-angle book-flight book-flight-nodelay buy-ticket choose-date choose-date-easy choose-date-medium
choose-date-nodelay choose-list circle-center click-button click-button-sequence click-checkboxes click-checkboxes-large
click-checkboxes-soft click-checkboxes-transfer click-collapsible click-collapsible-2 click-collapsible-2-nodelay
click-collapsible-nodelay click-color click-dialog click-dialog-2 click-link click-menu click-menu-2 click-option click-pie
click-pie-nodelay click-scroll-list click-shades click-shape click-tab click-tab-2 click-tab-2-easy click-tab-2-hard
click-tab-2-medium click-test click-test-2 click-test-transfer click-widget copy-paste copy-paste-2 count-shape count-sides
daily-calendar drag-box drag-circle drag-cube drag-items drag-items-grid drag-shapes drag-shapes-2 drag-single-shape
drag-sort-numbers draw-circle draw-line email-inbox email-inbox-delete email-inbox-forward email-inbox-forward-nl
email-inbox-forward-nl-turk email-inbox-important email-inbox-nl-turk email-inbox-noscroll email-inbox-reply
email-inbox-star-reply enter-date enter-password enter-text enter-text-2 enter-text-dynamic enter-time find-greatest
find-midpoint find-word focus-text focus-text-2 form-sequence form-sequence-2 form-sequence-3 generate-number
grid-coordinate guess-number highlight-text highlight-text-2 hot-cold identify-shape login-user login-user-popup
multi-layouts multi-orderings navigate-tree number-checkboxes odd-or-even order-food phone-book read-table read-table-2
resize-textarea right-angle scroll-text scroll-text-2 search-engine sign-agreement simple-algebra simple-arithmetic
social-media social-media-all social-media-some stock-market terminal text-editor text-transform tic-tac-toe unicode-test
use-autocomplete use-autocomplete-nodelay use-colorwheel use-colorwheel-2 use-slider use-slider-2 use-spinner
visual-addition
"""
)
"""Every page but the three flight sites, which need a server and another screen size."""

NOT_ON_ANDROID = frozenset(
    _names(
        """
ascending-numbers book-flight-nodelay buy-ticket choose-date-nodelay click-collapsible-2-nodelay
click-collapsible-nodelay click-menu click-pie-nodelay daily-calendar drag-circle drag-cube drag-items drag-items-grid
drag-shapes drag-shapes-2 drag-single-shape drag-sort-numbers draw-circle draw-line find-greatest form-sequence
form-sequence-2 form-sequence-3 generate-number hot-cold number-checkboxes odd-or-even order-food phone-book sign-agreement
stock-market text-editor use-autocomplete-nodelay use-slider-2 use-spinner
"""
    )
)
ANDROID_WORLD = tuple(name for name in DESKTOP if name not in NOT_ON_ANDROID)
"""The 90 names that AndroidWorld's MiniWoB list shares with the package (it also has drag-item and simon-says)."""

PIX2ACT = _names(
    """
bisect-angle choose-date-nodelay circle-center click-button click-button-sequence click-checkboxes click-checkboxes-large
click-checkboxes-soft click-checkboxes-transfer click-collapsible-2-nodelay click-collapsible-nodelay click-color
click-dialog click-dialog-2 click-link click-option click-pie-nodelay click-shades click-shape click-tab click-tab-2
click-tab-2-easy click-tab-2-hard click-tab-2-medium click-test click-test-2 click-test-transfer click-widget count-shape
count-sides drag-box drag-items drag-items-grid drag-shapes drag-sort-numbers email-inbox-delete email-inbox-important
enter-date enter-text-2 enter-time find-midpoint grid-coordinate identify-shape navigate-tree number-checkboxes
resize-textarea right-angle simple-algebra simple-arithmetic text-transform tic-tac-toe unicode-test
use-autocomplete-nodelay use-colorwheel use-colorwheel-2 use-slider use-slider-2 visual-addition
"""
)
"""The 58 of the 59 pages on which Pix2Act (arXiv 2306.00245) is scored that the package has (not drag-item)."""

SMOKE = ("click-test-2", "click-checkboxes", "enter-text", "click-option", "read-table", "navigate-tree")

TINY = _names(
    "click-test click-test-2 click-dialog focus-text focus-text-2 click-color identify-shape click-button-sequence enter-text"
)
"""Pages for small models: one to three steps, decided by a place, a colour, a shape, a word to read or to copy."""


def suite(name: str) -> tuple[str, ...]:
    """Pages of a suite: smoke, tiny, experts (those with a scripted expert), android-world, pix2act,
    pix2act-experts, all; or names with commas."""
    from guiderail.envs.miniwob.experts import EXPERTS

    known = {
        "smoke": SMOKE,
        "tiny": TINY,
        "experts": tuple(sorted(EXPERTS)),
        "android-world": ANDROID_WORLD,
        "pix2act": PIX2ACT,
        "pix2act-experts": tuple(page for page in PIX2ACT if page in EXPERTS),
        "all": DESKTOP,
    }
    chosen = known.get(name) or tuple(part.strip() for part in name.split(","))
    unknown = sorted({*chosen} - {*DESKTOP})
    if unknown:
        raise SetupError(f"unknown page {', '.join(unknown)}; expected {', '.join(known)}, or names from `all`")
    return chosen
