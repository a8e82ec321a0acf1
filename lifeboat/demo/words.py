"""The studio's words: names, places and phrases that its content is drawn from."""

PROJECTS = (
    ("the-lighthouse-keepers", "The Lighthouse Keepers", "Northwind Pictures"),
    ("orbit-nine", "Orbit Nine", "Halcyon Streaming"),
    ("a-kitchen-in-lisbon", "A Kitchen in Lisbon", "Casa Verde Films"),
    ("the-paper-city", "The Paper City", "Northwind Pictures"),
    ("cartographers", "Cartographers", "Meridian Learning"),
    ("winter-line", "Winter Line", "Halcyon Streaming"),
    ("little-engines", "Little Engines", "Tandem Kids"),
    ("the-quiet-archive", "The Quiet Archive", "Meridian Learning"),
)
FIRST_NAMES = (
    "Amara", "Bruno", "Chidi", "Dilara", "Elin", "Farid", "Greta", "Hiro", "Irene", "Jonas", "Kavya", "Leo", "Mina",
    "Noor", "Otto", "Priya", "Quentin", "Rosa", "Sami", "Tove", "Ulla", "Viktor", "Wren", "Ximena", "Yusuf", "Zofia",
)  # fmt: skip
LAST_NAMES = (
    "Abara", "Bergström", "Castellanos", "Dvořák", "Eriksen", "Fontaine", "García", "Haddad", "Ivanova", "Jensen",
    "Kowalski", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Petrov", "Quispe", "Rossi", "Sørensen", "Takahashi",
)  # fmt: skip
PARTS = ("lead", "lead", "support", "support", "support", "guest", "narrator", "crowd")
ORIGINS = ("a harbour town", "a mining station", "a family of bakers", "the night trains", "a travelling theatre")
WISHES = ("find the missing map", "keep the light burning", "win back the kitchen", "leave before the first snow")
FLAWS = ("never admits a mistake", "trusts too quickly", "counts everything twice", "cannot stand silence")
TRAITS = ("curious", "stubborn", "gentle", "reckless", "patient", "witty", "proud", "shy", "loyal", "restless")
VOICES = ("alto-warm", "alto-dry", "baritone-soft", "tenor-bright", "bass-slow", "soprano-clear", "child-light")
PLACES = ("on the pier", "in the engine room", "at the market", "under the bridge", "in the archive", "on the roof")
ACTIONS = ("waits for the ferry", "opens the letter", "repairs the radio", "tells the truth", "runs for the train",
           "burns the recipe", "draws the coast", "hears the alarm", "counts the boxes", "says goodbye")  # fmt: skip
LIGHTS = ("at dawn", "in hard noon light", "at dusk", "by candle", "under neon", "in fog")
NODES = ("gpu-a1", "gpu-a2", "gpu-b1", "gpu-b2", "gpu-c1")

SCENE_TYPES = (
    ("establishing", "Establishing shot", "Shows where we are before anybody speaks.", "wide, slow dolly", 6.0),
    ("dialogue", "Dialogue", "Two or more characters talk.", "over the shoulder, cut on lines", 8.5),
    ("monologue", "Monologue", "One character speaks to us or to themself.", "medium close-up, still", 10.0),
    ("reaction", "Reaction", "A face, and what it does not say.", "close-up, hand-held", 3.0),
    ("action", "Action", "Something fast happens.", "wide to medium, whip pans", 5.0),
    ("montage", "Montage", "Time passes.", "mixed, cut to music", 12.0),
    ("insert", "Insert", "A detail that matters later.", "macro, locked", 2.5),
    ("transition", "Transition", "From one place or time to the next.", "match cut", 2.0),
    ("title", "Title", "Lettering over picture.", "static", 4.0),
)
ROLES = (
    ("administrator", "Administrator", "Runs the platform."),
    ("producer", "Producer", "Owns budgets and due dates."),
    ("director", "Director", "Approves and rejects segments."),
    ("artist", "Artist", "Makes characters and segments."),
    ("reviewer", "Reviewer", "Comments on what waits for approval."),
    ("guest", "Guest", "Watches what is approved."),
)
PERMISSIONS = (
    ("segments.view", "See segments and their files.", 6),
    ("segments.comment", "Comment on segments.", 5),
    ("segments.edit", "Create and change segments.", 4),
    ("segments.approve", "Approve or reject segments.", 3),
    ("characters.edit", "Create and change characters.", 4),
    ("workflows.edit", "Change workflows and scene types.", 3),
    ("hooks.edit", "Change hook scripts.", 1),
    ("projects.edit", "Change budgets and due dates.", 2),
    ("users.manage", "Invite people and give them roles.", 1),
    ("backups.restore", "Restore the platform.", 1),
)
"""name, description, and how many roles have it, counted from the top of ROLES."""

PEOPLE = (
    ("Signe Dahl", "administrator"), ("Marek Horváth", "administrator"), ("Aisha Bello", "producer"),
    ("Tomás Silva", "producer"), ("Yuki Mori", "director"), ("Clara Weiss", "director"), ("Ravi Menon", "director"),
    ("Lena Fischer", "artist"), ("Omar Saleh", "artist"), ("Nina Kuznetsova", "artist"), ("Jack Doyle", "artist"),
    ("Mei Chen", "artist"), ("Pablo Ortega", "artist"), ("Ingrid Solberg", "reviewer"), ("Sam Whitaker", "reviewer"),
    ("Fatima Zahra", "reviewer"), ("Hugo Laurent", "guest"), ("Emma Byrne", "guest"),
)  # fmt: skip
EVENTS = ("segment.approved", "segment.rejected", "render.failed", "backup.failed")
