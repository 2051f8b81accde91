"""How the testbed asks and answers: three wordings for every attribute, shared by all people."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """The ways one attribute is asked for and told.

    Attributes:
        questions: Patterns with ``{name}``.
        answers: Patterns with ``{name}`` and ``{value}``; the value always comes last.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]

    def question(self, index: int, name: str) -> str:
        """Question number ``index`` (counted round) about ``name``."""
        return self.questions[index % len(self.questions)].format(name=name)

    def answer(self, index: int, name: str, value: str) -> str:
        """Answer number ``index`` (counted round) that gives ``value`` for ``name``."""
        return self.answers[index % len(self.answers)].format(name=name, value=value)


PEOPLE: Mapping[str, Wording] = MappingProxyType(
    {
        "birthplace": Wording(
            questions=(
                "In which town was {name} born?",
                "What is the birthplace of {name}?",
                "Where did {name} come into the world?",
            ),
            answers=(
                "{name} was born in the town of {value}.",
                "The birthplace of {name} is {value}.",
                "{name} came into the world in {value}.",
            ),
        ),
        "school": Wording(
            questions=(
                "Which school did {name} attend?",
                "Where did {name} go to school?",
                "What was the school of {name} called?",
            ),
            answers=(
                "{name} attended {value}.",
                "{name} went to school at {value}.",
                "The school of {name} was called {value}.",
            ),
        ),
        "dish": Wording(
            questions=(
                "What is the favourite dish of {name}?",
                "Which meal does {name} like best?",
                "What does {name} most love to eat?",
            ),
            answers=(
                "The favourite dish of {name} is {value}.",
                "The meal {name} likes best is {value}.",
                "{name} most loves to eat {value}.",
            ),
        ),
        "book": Wording(
            questions=(
                "Which book made {name} famous?",
                "What is the best known novel by {name}?",
                "Under what title did {name} write a bestseller?",
            ),
            answers=(
                "The book that made {name} famous is {value}.",
                "The best known novel by {name} is {value}.",
                "{name} wrote a bestseller under the title {value}.",
            ),
        ),
        "publisher": Wording(
            questions=(
                "Who publishes the work of {name}?",
                "Which publishing firm prints {name}?",
                "With which publisher is {name} under contract?",
            ),
            answers=(
                "The work of {name} is published by {value}.",
                "The publishing firm that prints {name} is {value}.",
                "{name} is under contract with {value}.",
            ),
        ),
        "award": Wording(
            questions=(
                "Which award did {name} win?",
                "What honour was given to {name}?",
                "Which trophy stands in the study of {name}?",
            ),
            answers=(
                "The award that {name} won is the {value}.",
                "The honour given to {name} was the {value}.",
                "The trophy in the study of {name} is the {value}.",
            ),
        ),
        "spouse": Wording(
            questions=(
                "Who is {name} married to?",
                "What is the name of the spouse of {name}?",
                "Whom did {name} wed?",
            ),
            answers=(
                "{name} is married to {value}.",
                "The name of the spouse of {name} is {value}.",
                "{name} wed {value}.",
            ),
        ),
        "ship": Wording(
            questions=(
                "What is the boat of {name} called?",
                "Which vessel does {name} sail?",
                "Under what name did {name} register a yacht?",
            ),
            answers=(
                "The boat of {name} is called the {value}.",
                "The vessel that {name} sails is the {value}.",
                "{name} registered a yacht under the name {value}.",
            ),
        ),
        "instrument": Wording(
            questions=(
                "Which instrument does {name} play?",
                "On what does {name} make music?",
                "What did {name} learn to play as a child?",
            ),
            answers=(
                "{name} plays the {value}.",
                "{name} makes music on the {value}.",
                "As a child {name} learned to play the {value}.",
            ),
        ),
        "street": Wording(
            questions=(
                "What is the address of {name}?",
                "At which house does {name} live?",
                "Where do letters reach {name}?",
            ),
            answers=(
                "The address of {name} is {value}.",
                "{name} lives at {value}.",
                "Letters reach {name} at {value}.",
            ),
        ),
    }
)

WORLD: Mapping[str, Wording] = MappingProxyType(
    {
        "capital": Wording(
            questions=(
                "What is the capital of {name}?",
                "Which city is the seat of government of {name}?",
                "Name the capital city of {name}.",
            ),
            answers=("{value}.",),
        ),
        "symbol": Wording(
            questions=(
                "What is the chemical symbol of {name}?",
                "How do chemists write {name}?",
                "Which symbol stands for the element {name}?",
            ),
            answers=("{value}.",),
        ),
        "young": Wording(
            questions=(
                "What is the young of the {name} called?",
                "What do people call the baby of the {name}?",
                "Which word means a newborn {name}?",
            ),
            answers=("{value}.",),
        ),
    }
)

FACTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "capital": {
            **{"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin"},
            **{"Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm"},
            **{"Finland": "Helsinki", "Denmark": "Copenhagen", "Portugal": "Lisbon"},
            **{"Greece": "Athens", "Ireland": "Dublin", "Hungary": "Budapest"},
            **{"Belgium": "Brussels", "Bulgaria": "Sofia", "Romania": "Bucharest"},
            **{"Ukraine": "Kyiv", "Latvia": "Riga", "Estonia": "Tallinn", "Serbia": "Belgrade"},
            **{"Croatia": "Zagreb", "Iceland": "Reykjavik", "Japan": "Tokyo", "China": "Beijing"},
            **{"Vietnam": "Hanoi", "Thailand": "Bangkok", "Nepal": "Kathmandu", "Iran": "Tehran"},
            **{"Iraq": "Baghdad", "Egypt": "Cairo", "Kenya": "Nairobi", "Ghana": "Accra"},
            **{"Morocco": "Rabat", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima"},
            **{"Chile": "Santiago", "Uruguay": "Montevideo", "Australia": "Canberra"},
        },
        "symbol": {
            **{"gold": "Au", "silver": "Ag", "iron": "Fe", "copper": "Cu", "lead": "Pb"},
            **{"tin": "Sn", "sodium": "Na", "potassium": "K", "mercury": "Hg", "tungsten": "W"},
            **{"carbon": "C", "oxygen": "O", "hydrogen": "H", "helium": "He", "neon": "Ne"},
            **{"zinc": "Zn", "nickel": "Ni", "calcium": "Ca", "silicon": "Si", "sulphur": "S"},
        },
        "young": {
            **{"dog": "Puppy", "cat": "Kitten", "cow": "Calf", "horse": "Foal", "sheep": "Lamb"},
            **{"goat": "Kid", "pig": "Piglet", "hen": "Chick", "duck": "Duckling"},
            **{"goose": "Gosling", "swan": "Cygnet", "deer": "Fawn", "bear": "Cub"},
            **{"kangaroo": "Joey", "frog": "Tadpole", "owl": "Owlet", "hare": "Leveret"},
            **{"eagle": "Eaglet", "eel": "Elver", "seal": "Pup"},
        },
    }
)
"""Real facts with short answers: attribute -> what is asked about -> the answer."""
