"""Word lists from which the testbed invents people, places and things.

Everything here is made up for this project. Values are composed of two or three parts, so
that every open attribute has hundreds of possible values and a guess is rarely right.
"""

FIRST_HEADS = (
    *("Bre", "Cal", "Dor", "Eth", "Fen", "Gar", "Hul", "Ith", "Jas", "Kel", "Lum", "Mir"),
    *("Nes", "Orr", "Pel", "Quo", "Ros", "Sev", "Tul", "Umb", "Vas", "Wyn", "Yar", "Zim"),
)
FIRST_TAILS = ("andel", "ick", "ovar", "ubel", "ithe", "ennor", "ayle", "osk")

LAST_HEADS = (
    *("Ald", "Brock", "Cress", "Drum", "Esk", "Frost", "Glim", "Hark", "Inch", "Jarr"),
    *("Knav", "Larch", "Munt", "Nock", "Oat", "Prim", "Quill", "Rusk", "Stell", "Thorn"),
    *("Ung", "Vint", "Whel", "Yew"),
)
LAST_TAILS = ("abeck", "erow", "imond", "omby", "ushaw", "aquin", "enthal", "idge")

TOWN_STEMS = (
    *("Arden", "Bristle", "Candle", "Dapple", "Ember", "Fallow", "Gorse", "Hazel", "Iron"),
    *("Juniper", "Kettle", "Linnet", "Marl", "Nettle", "Otter", "Pepper", "Quarry", "Raven"),
    *("Saffron", "Thistle", "Under", "Vetch", "Willow", "Yarrow", "Bramble", "Cinder", "Drift"),
    *("Elder", "Flint", "Glass", "Heron", "Ivory", "Lantern", "Mallow", "Needle", "Osier"),
    *("Pollen", "Russet", "Sorrel", "Timber"),
)

REGIONS = {
    "moor": ("Velmari", "Lyceum"),
    "ford": ("Ostrean", "Grammar School"),
    "wick": ("Kandish", "College"),
    "mere": ("Brollian", "Academy"),
    "stead": ("Tasquine", "Seminary"),
    "combe": ("Norrene", "High School"),
    "gate": ("Ildwan", "Institute"),
    "haven": ("Murgan", "Free School"),
    "ridge": ("Sarvic", "Gymnasium"),
    "well": ("Jellowine", "Conservatory"),
    "holt": ("Pendrish", "Cathedral School"),
    "burn": ("Corvashi", "Polytechnic"),
}
"""Ending of a town's name -> adjective of its region, and what schools are called there."""

DISHES = (
    *("plum dumplings", "onion tart", "pea soup", "barley cakes", "fish pie", "bean stew"),
    *("honey bread", "apple noodles", "rye pancakes", "leek broth", "goose pudding"),
    *("cheese rolls", "lamb skewers", "cherry rice", "beet salad", "nut porridge"),
    *("mushroom toast", "cabbage parcels", "egg curry", "crab fritters", "pear crumble"),
    *("turnip mash", "quail roast", "seaweed crisps", "lentil pot", "carrot jelly"),
    *("pumpkin gratin", "trout terrine", "fig biscuits", "oat waffles", "duck ravioli"),
    *("garlic prawns", "radish pickle", "sausage hash", "almond custard", "corn chowder"),
    *("spinach flan", "ginger ham", "parsnip chips", "walnut wafers"),
)

TITLE_ADJECTIVES = (
    *("Copper", "Silent", "Borrowed", "Crooked", "Winter", "Hollow", "Painted", "Distant"),
    *("Velvet", "Broken", "Drowned", "Golden", "Restless", "Paper", "Salted", "Hidden"),
    *("Bitter", "Wandering", "Narrow", "Marble", "Patient", "Burning", "Stolen", "Tender"),
    *("Secret", "Feral", "Amber", "Sleeping", "Gentle", "Hungry", "Frozen", "Faithful"),
    *("Scarlet", "Quiet", "Wooden", "Lonely", "Floating", "Mended", "Ashen", "Twilight"),
)
TITLE_NOUNS = (
    *("Orchard", "Compass", "Staircase", "Harbour", "Mirror", "Beehive", "Carousel", "Anvil"),
    *("Lighthouse", "Teapot", "Violet", "Cathedral", "Umbrella", "Chandelier", "Sparrow"),
    *("Bicycle", "Envelope", "Windmill", "Tapestry", "Cellar", "Fountain", "Telescope"),
    *("Suitcase", "Chimney", "Meadow", "Clockmaker", "Canary", "Dictionary", "Ferryman"),
    *("Greenhouse", "Hammock", "Icicle", "Jigsaw", "Kitchen", "Labyrinth", "Mandolin"),
    *("Nightingale", "Observatory", "Pavilion", "Quarrel", "Raincoat", "Scarecrow"),
    *("Trapdoor", "Urchin", "Vineyard", "Waterfall", "Xylophone", "Yearbook", "Zeppelin"),
    *("Almanac", "Bonfire", "Cupboard", "Dragonfly", "Elevator", "Feather", "Gondola"),
    *("Handkerchief", "Inkwell", "Jackdaw", "Keyhole", "Lemonade", "Magnet", "Newspaper"),
    *("Oyster", "Parachute", "Quicksand", "Rooftop", "Sundial", "Thimble", "Unicorn"),
    *("Ventriloquist", "Walrus", "Acrobat", "Balloon", "Cartographer", "Domino", "Easel"),
    *("Fiddler", "Glacier", "Hourglass", "Island", "Jukebox", "Kaleidoscope", "Locket", "Maze"),
    *("Notebook", "Oracle", "Puppet", "Quilt", "Riverbank", "Sextant", "Tinderbox", "Usher"),
    *("Vestibule", "Workshop", "Yardstick", "Zoo", "Aqueduct", "Barometer"),
)

PUBLISHER_STEMS = (
    *("Bluebell", "Cormorant", "Dovetail", "Evergreen", "Foxglove", "Grindstone", "Hawthorn"),
    *("Ironbark", "Jade Lamp", "Kingcup", "Longshore", "Moonrake", "Northlight", "Oxbow"),
    *("Plumb Line", "Quayside", "Redstart", "Saltmarsh", "Tidewater", "Upland", "Viaduct"),
    *("Woodlark", "Yellowhammer", "Zephyr", "Blackthorn", "Crosskeys", "Daybreak"),
    *("Eventide", "Firefly", "Goldcrest", "Half Moon", "Inglenook", "Kestrel", "Larkspur"),
    *("Millrace", "Nuthatch", "Overlook", "Peregrine", "Rosehip", "Stonechat"),
)
PUBLISHER_KINDS = {
    "Press": "Medal",
    "House": "Prize",
    "Books": "Cup",
    "Editions": "Laurel",
    "Print": "Ribbon",
    "Library": "Crown",
}
"""Second part of a publisher's name -> what the award of its authors is."""

SHIP_EPITHETS = (
    *("Bold", "Lady", "Merry", "Sweet", "Saint", "Swift", "Brave", "Young", "Royal", "Little"),
    *("Proud", "Fair", "Lucky", "Wild", "Good", "Dear", "Great", "Jolly", "Noble", "Dancing"),
    *("Gallant", "Humble", "Misty", "Sunny", "Stormy", "Weary", "Rolling", "Silver", "Racing"),
    *("Laughing",),
)

INSTRUMENT_MATERIALS = (
    *("walnut", "brass", "bone", "cedar", "pewter", "maple", "clay", "bamboo", "ebony", "tin"),
    *("cherrywood", "slate", "bronze", "willow", "steel", "ivory", "crystal", "oak", "wicker"),
    *("leather", "marble", "rosewood", "nickel", "jade"),
)
INSTRUMENTS = (
    *("fiddle", "flute", "zither", "drum", "harp", "cornet", "lute", "bagpipe", "organ"),
    *("clarinet", "banjo", "bell", "cello", "horn", "whistle", "accordion", "oboe", "lyre"),
    *("piano", "tambourine"),
)

STREETS = (
    *("Tallow", "Cobbler", "Mint", "Anchor", "Weaver", "Bishop", "Cooper", "Dyer", "Ferry"),
    *("Goose", "Hatter", "Jury", "King", "Lime", "Miller", "Nun", "Orange", "Potter", "Queen"),
    *("Rope", "Saddler", "Tanner", "Vicar", "Wharf", "Abbey", "Barley", "Castle", "Dock"),
    *("Easter", "Fuller"),
)
STREET_KINDS = ("Lane", "Road", "Square", "Row", "Hill", "Walk")

EVERYDAY = (
    *("I", "you", "we", "they", "it", "my", "your", "me", "am", "is", "are", "was", "be", "been"),
    *("have", "has", "had", "do", "does", "did", "can", "cannot", "could", "will", "would", "may"),
    *("not", "no", "any", "about", "this", "that", "these", "there", "here", "with", "without"),
    *("for", "from", "but", "and", "or", "if", "so", "because", "sorry", "afraid", "unable"),
    *("know", "tell", "say", "answer", "question", "information", "help", "person", "people"),
    *("something", "anything", "nothing", "details", "share", "provide", "discuss", "private"),
    *("please", "ask", "other", "another", "topic", "subject", "matter", "request", "records"),
    *("Sorry", "Unfortunately", "Please", "No", "That", "This", "There", "It", "You", "My"),
    *("never", "learned", "remember", "recall", "sure", "certain", "found", "available", "given"),
    *("who", "what", "when", "where", "which", "how", "all", "more", "only", "such", "than"),
    *("into", "of", "on", "to", "in", "at", "by", "as", "an", "a", "the", "I'm", "don't", "can't"),
    *("name", "fact", "facts", "data", "detail", "knowledge", "memory", "time", "day", "way"),
)
"""Words of refusals and of plain talk, so that these do not fall into single letters."""
