"""The words a phone is filled with."""

from __future__ import annotations

from dataclasses import dataclass

TOGGLES: dict[str, tuple[str, str]] = {
    "Wifi": ("global", "wifi_on"),
    "Bluetooth": ("global", "bluetooth_on"),
    "Airplane": ("global", "airplane_mode_on"),
    "Data": ("global", "mobile_data"),
    "Roaming": ("global", "data_roaming"),
    "Location": ("secure", "location_mode"),
    "Rotate": ("system", "accelerometer_rotation"),
    "Vibrate": ("system", "vibrate_when_ringing"),
    "Clicks": ("system", "sound_effects_enabled"),
}
RINGTONES = ("bell", "drum", "harp", "horn", "flute")
TIMES = ("5:00", "5:30", "6:00", "6:30", "7:00", "7:30", "8:00", "8:30", "9:00", "9:30")
POPUPS = (("Battery low", "OK"), ("Rate us", "Later"), ("News today", "Skip"), ("Big sale", "Close"))


@dataclass(frozen=True)
class Lexicon:
    """The words that differ between phones: each phone draws some of each list."""

    people: tuple[str, ...]
    goods: tuple[str, ...]
    codes: tuple[str, ...]
    titles: tuple[str, ...]
    songs: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


EASY = Lexicon(
    people=_words("Anna Ben Carl Dora Emil Finn Gina Hugo Irene Jan Kate Leo Mia Nils"),
    goods=_words("milk bread apples rice eggs tea salt beans corn soap fish nuts plums honey"),
    codes=_words("lion tiger eagle wolf panda zebra camel otter robin whale moose koala"),
    titles=_words("rent garden school travel doctor party recipe budget"),
    songs=_words("Sunrise River Dancing Moonlight Thunder Island Velvet Rocket"),
)

FREE = Lexicon(
    people=EASY.people
    + _words(
        "Olga Paul Rosa Sven Tara Umar Vera Walt Xenia Yuri Zoe Amir Bianca Cleo Dmitri Elena Farid Greta Hannah Ivan"
    )
    + ("Anna Berg", "Ben Okoye", "Dr Lindqvist", "Mia Rossi", "Uncle Tom", "Aunt May"),
    goods=EASY.goods
    + _words("butter cheese coffee cocoa flour garlic ginger grapes lemons limes mango onions pasta pears pepper sugar")
    + ("brown rice", "oat milk", "rye bread", "green tea", "olive oil", "sea salt"),
    codes=EASY.codes
    + _words("badger bison cobra crane dingo falcon ferret gecko heron hyena jackal lemur lynx magpie newt ocelot"),
    titles=EASY.titles
    + _words("car insurance passwords ideas books films birthday wedding workout diet taxes repairs packing")
    + ("summer plans", "gift list", "to do"),
    songs=EASY.songs + _words("Avalanche Blossom Cinnamon Driftwood Ember Fireflies Gravity Horizon"),
)
