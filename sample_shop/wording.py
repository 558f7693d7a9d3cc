"""The sentences of the sample shop's descriptions. Braces name what is filled in.

None of them tells a colour, a pattern or an accent: those are for the picture alone.
"""

TITLES = (
    "{brand} {material} {kind}",
    "{brand} {line} {kind}",
    "{line} {kind} by {brand}",
    "{Kind} in {material}, {brand}",
    "{brand} {kind}, size {size}",
    "{line} {material} {kind}",
    "{brand}: {kind} '{line}'",
    "{Kind} '{line}' | {brand}",
    "{line} {kind}",
    "{brand} {kind}",
)
UNSEEN_TITLES = ("The {line} {kind} from {brand}", "{Kind} ({material}), made by {brand}")

# Names of product lines: ordinary words that mean nothing.
LINES = (
    "Harbour", "Meadow", "Nightfall", "Sunday", "Cobble", "Lantern", "Orchard", "Willow", "Pebble", "Breeze",
    "Station", "Garden", "Atlas", "Cloud", "Ember", "Fable", "Grove", "Island", "Juniper", "Kite", "Ledger", "Mosaic",
    "Nomad", "Opal", "Prairie", "Quarry", "Ripple", "Summit", "Thistle", "Valley", "Wander", "Bridge", "Canyon",
    "Drift", "Echo", "Folk", "Glide", "Hearth",
)  # fmt: skip

KIND_SENTENCES = (
    "This {kind} has been part of our range for years.",
    "{A_kind} you will reach for again and again.",
    "Here is {a_kind} that does its job.",
    "Meet the {kind} our customers keep asking for.",
    "We think {a_kind} should last, and this one does.",
    "It is {a_kind} of the simple, honest sort.",
    "Looking for {a_kind}? You have found one.",
    "The {line} {kind} is new this season.",
    "Our buyers picked this {kind} out of forty.",
)
UNSEEN_KIND_SENTENCES = ("Few things beat a good {kind}.",)

MATERIAL_SENTENCES = (
    "It is made of {material}.",
    "The {material} comes from a small supplier.",
    "We use {material} throughout.",
    "Made from good {material} that ages well.",
    "The main material is {material}.",
    "Material: {material}.",
    "{Material} gives it a pleasant feel.",
    "Its maker works in {material} and nothing else.",
    "Crafted in {material}, finished by hand.",
    "Solid {material}, no shortcuts.",
    "You will like how the {material} feels.",
)
UNSEEN_MATERIAL_SENTENCES = ("Only selected {material} goes into it.",)

BRAND_SENTENCES = (
    "It comes from {brand}.",
    "{brand} designed it in their own workshop.",
    "Made by {brand}.",
    "The people at {brand} know what they are doing.",
    "{brand} stands behind it with a two-year guarantee.",
    "Brand: {brand}.",
    "Part of the {brand} collection.",
    "A classic of the house of {brand}.",
    "Every piece is signed off by {brand}.",
    "We have sold {brand} since we opened.",
    "Designed and finished by {brand}, a family firm.",
)
UNSEEN_BRAND_SENTENCES = ("The name on the label is {brand}.",)

OCCASION_SENTENCES = {
    "everyday": (
        "Right for every day.",
        "Something to use day in, day out.",
        "It fits everyday life.",
        "Made for daily use.",
    ),
    "office": (
        "It looks right at the office.",
        "A good companion at work.",
        "Made with the working day in mind.",
        "Fit for the office, from first meeting to last.",
    ),
    "travel": (
        "Made for travelling.",
        "It is happy in a suitcase or on a train.",
        "Take it along on your next journey.",
        "Ideal for trips and long travel days.",
    ),
    "party": (
        "Just right for a party.",
        "It shines at parties and celebrations.",
        "Bring it out when friends come to celebrate.",
        "Made for festive evenings.",
    ),
    "gift": (
        "It makes a lovely gift.",
        "A present that never fails.",
        "Ready to give, in a gift box.",
        "Many of our customers buy it as a gift.",
    ),
    "outdoor": (
        "Built for the outdoors.",
        "At home in the open air.",
        "Take it camping or into the garden.",
        "It does best outdoors.",
    ),
    "sports": (
        "Good for sports.",
        "It keeps up with training and matches.",
        "For the club, the gym and the track.",
        "Made for people who do sports.",
    ),
    "winter": (
        "Made for winter.",
        "Just the thing for cold months.",
        "It comes into its own when it snows.",
        "Best in the winter season.",
    ),
}
UNSEEN_OCCASION_SENTENCES = {
    "everyday": "You can use it every day.",
    "office": "Colleagues at the office will notice.",
    "travel": "It is a fine thing to travel with.",
    "party": "No party should be without it.",
    "gift": "Give it as a gift and see.",
    "outdoor": "Meant to be used outdoors.",
    "sports": "A friend of all who love sports.",
    "winter": "You will be glad of it in winter.",
}

CARE_SENTENCES = {
    "machine-wash": (
        "Machine wash at 30 degrees.",
        "It can go in the washing machine.",
        "Care: machine wash.",
        "Wash it in the machine with like things.",
    ),
    "hand-wash": (
        "Hand wash only.",
        "Please wash it by hand.",
        "Care: hand wash.",
        "Wash by hand in lukewarm water.",
    ),
    "dry-clean": (
        "Dry clean only.",
        "Take it to the dry cleaner.",
        "Care: dry clean.",
        "It should be dry cleaned.",
    ),
    "cool-iron": (
        "Iron it cool.",
        "Use a cool iron, inside out.",
        "Care: cool iron.",
        "A cool iron is all it needs.",
    ),
    "dishwasher-safe": (
        "Dishwasher safe.",
        "It can go in the dishwasher.",
        "Care: dishwasher.",
        "The dishwasher does it no harm.",
    ),
    "wipe-clean": (
        "Wipe it clean with a damp cloth.",
        "It wipes clean in a moment.",
        "Care: wipe with a cloth.",
        "Just wipe off any marks.",
    ),
    "dust-only": (
        "Dust it now and then.",
        "Dusting is all the care it wants.",
        "Care: dust only.",
        "A dry duster keeps it fresh.",
    ),
    "polish-only": (
        "Polish it twice a year.",
        "A little polish keeps its shine.",
        "Care: polish.",
        "Use polish and a soft rag, nothing else.",
    ),
}
UNSEEN_CARE_SENTENCES = {
    "machine-wash": "The washing machine is fine.",
    "hand-wash": "Better to wash it by hand.",
    "dry-clean": "Dry cleaning keeps it at its best.",
    "cool-iron": "If you iron it, keep the iron cool.",
    "dishwasher-safe": "Put it in the dishwasher without worry.",
    "wipe-clean": "A quick wipe and it is clean.",
    "dust-only": "Needs no more than dusting.",
    "polish-only": "Rub it with polish from time to time.",
}

SIZE_SENTENCES = (
    "Size: {size}.",
    "This one is size {size}.",
    "It comes in size {size}.",
    "Offered here in {size}.",
    "The size is {size}.",
    "You are looking at size {size}.",
    "We have it in {size} only.",
    "Size {size}, true to measure.",
)
UNSEEN_SIZE_SENTENCES = ("In this listing the size is {size}.",)

FILLER = (
    "We ship within two days.",
    "Returns are free for a month.",
    "Every order is packed with paper, never plastic.",
    "Stocks are small, so don't wait too long.",
    "Ask us anything, we answer on weekdays.",
    "Our customers give it four stars and more.",
    "It replaces the model from last year.",
    "No two pieces are quite alike.",
    "The picture was taken in our own studio.",
    "Details may differ a little from the picture.",
    "We tried it ourselves for a month.",
    "It arrives in a plain box.",
    "A small card with the story of the maker is included.",
    "Good things take time, and this one took a year.",
    "You can pick it up in our store as well.",
    "Prices include tax.",
    "Join our newsletter for offers.",
    "It was mentioned in three magazines.",
    "Nothing about it is complicated.",
    "Our shop is run by five people and a dog.",
    "We repair what we sell.",
    "It has been tested for a long life.",
    "Simple lines, careful work.",
    "You will find matching pieces further down this page.",
    "Please read the label before first use.",
    "One tree is planted for each order.",
    "The shape has hardly changed in ten years.",
    "It took first place in our staff vote.",
    "A favourite since the day it came in.",
    "There is a little surprise inside the box.",
    "Free delivery from the second piece on.",
    "It feels as good as it looks.",
)
