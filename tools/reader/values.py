"""Values of facts and the things that facts are about."""

from __future__ import annotations

from tools.reader.words import ADJECTIVES, ITEMS, NOUNS, WORDS, Maker


def person(make: Maker) -> str:
    """A person's name."""
    style = make.rng.random()
    if style < 0.65:
        return f"{make.first_name()} {make.name_word()}"
    return make.rng.choice(("Dr. {}", "Ms. {}", "Mr. {}", "Dr. {}", "Captain {}", "Nurse {}")).format(
        make.name_word()
    )


def phrase(make: Maker) -> str:
    """Two or three everyday words."""
    rng = make.rng
    words = [rng.choice(NOUNS)] if rng.random() < 0.4 else [rng.choice(NOUNS), rng.choice(NOUNS)]
    if rng.random() < 0.6 or len(words) == 1:
        words.insert(0, rng.choice(ADJECTIVES))
    return " ".join(words)


def company(make: Maker) -> str:
    """A company's name."""
    kind = make.rng.choice(WORDS["firms"])
    return f"{make.name_word()} {kind}"


def place(make: Maker) -> str:
    """A place that a sentence can put after 'in' or 'at'."""
    rng = make.rng
    style = rng.random()
    if style < 0.25:
        return f"{make.name_word()} {rng.choice(WORDS['surroundings'])}"
    if style < 0.4:
        return f"room {make.digits(rng.choice((1, 2, 3)))}"
    if style < 0.5:
        return f"building {rng.choice('ABCDEFGHKL')}"
    if style < 0.6:
        return make.name_word()
    return f"the {phrase(make)}"


def value(make: Maker, kind: str) -> str:
    """A value of a kind."""
    rng = make.rng
    match kind:
        case "person":
            return person(make)
        case "place":
            return place(make)
        case "company":
            return company(make)
        case "extension":
            return make.digits(rng.choice((3, 4, 4, 4, 5)))
        case "time":
            return make.time()
        case "date":
            return make.date()
        case "money":
            return make.money()
        case "code":
            return make.code()
        case "phone":
            return make.phone()
        case "colour":
            return rng.choice(WORDS["colours"])
        case "percent":
            return f"{make.digits(rng.choice((1, 2)))}.{rng.randrange(10)} percent"
        case "items":
            first, second = rng.sample(ITEMS, 2)
            return f"{first} and {second}"
        case "weekday":
            return rng.choice(WORDS["weekdays"])
        case "temperature":
            low = rng.randrange(1, 40)
            style = rng.random()
            if style < 0.4:
                return f"{low} to {low + rng.randrange(1, 12)} degrees"
            return f"minus {low} degrees" if style < 0.6 else f"{low} degrees"
        case "number":
            return make.digits(rng.randrange(1, 7))
        case "name":
            return make.name_word()
        case _:
            return f"{make.digits(rng.choice((1, 2, 2, 3)))} {rng.choice(WORDS[f'units_{kind}'])}"


def entity(make: Maker, kind: str) -> str:
    """A thing that facts are about."""
    rng = make.rng
    match kind:
        case "person":
            return person(make)
        case "company":
            return company(make)
        case "place":
            name = make.name_word()
            forms = (
                "Ward {}", "Station {}", "the {} branch", "the {} ward", "{} Station", "the {} office",
                "the {} laboratory", "the {} depot", "{} Harbour", "{} Hospital",
            )  # fmt: skip
            return rng.choice(forms).format(name)
        case "drug":
            return make.name_word().lower() if rng.random() < 0.3 else make.name_word()
        case "record":
            kind = rng.choice(WORDS["records"])
            number = make.code() if rng.random() < 0.75 else make.digits(rng.randrange(3, 7))
            return f"{kind} {number}"
        case "event":
            return f"{rng.choice(('a', 'the'))} {phrase(make)}"
        case _:
            if rng.random() < 0.15:
                return f"the {make.name_word()} {rng.choice(NOUNS)}"
            return f"the {phrase(make)}"


def confusable(make: Maker, name: str) -> str:
    """Another thing whose name differs from `name` in one word."""
    words = name.split()
    at = make.rng.choice([i for i, word in enumerate(words) if word not in ("the", "a") and word[-1] != "."])
    word = words[at]
    if any(letter.isdigit() for letter in word):
        while True:
            digits = [i for i, letter in enumerate(word) if letter.isdigit()]
            spot = make.rng.choice(digits)
            other = word[:spot] + make.rng.choice("123456789") + word[spot + 1 :]
            if other != word:
                break
    elif word in ADJECTIVES:
        other = make.rng.choice([one for one in ADJECTIVES if one != word])
    elif word in NOUNS:
        other = make.rng.choice([one for one in NOUNS if one != word])
    elif word[0].isupper() and make.rng.random() < 0.5:
        other = make.near(word)
    else:
        other = make.name_word()
    return " ".join([*words[:at], other, *words[at + 1 :]])
