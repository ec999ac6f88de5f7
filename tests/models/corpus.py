#!/usr/bin/env python3
"""Corpus generator of the bundled story model: standard library only, same seed, same text.

    python3 corpus.py stories 10 [seed]     print 10 stories
    python3 corpus.py chats 10 [seed]       print 10 conversations
    python3 corpus.py held 200 [seed]       held-out stories, each followed by <|endoftext|>
    python3 corpus.py count                 size of the grammar

A story is drawn from a plot (wish or trouble, obstacle, help, turn, ending).  Every plot has
several phrasings for each beat and its own slots, whose values fit each other.  About one in
twelve pairs (adjective, hero) is held out: training text never has a hero of such a pair.
"""
import random
import re
import sys
import zlib

# ---------------------------------------------------------------- words

# kind: category; the category decides how a hero moves, where it lives and which plots fit
KINDS = {
    "land": "fox bear wolf deer mouse rat badger hedgehog squirrel cat kitten dog puppy cow calf horse pony "
            "donkey sheep lamb goat pig piglet lion tiger leopard elephant giraffe zebra camel monkey panda "
            "koala sloth otter beaver mole raccoon skunk weasel moose buffalo rhino hippo lizard snake "
            "tortoise hamster armadillo llama ox gorilla porcupine anteater meerkat chipmunk dragon unicorn "
            "troll goblin ogre dinosaur".split(),
    "hop": "rabbit hare bunny frog toad kangaroo cricket grasshopper wallaby".split(),
    "bird": "owl robin crow sparrow duck duckling goose swan hen rooster eagle hawk parrot penguin pigeon dove "
            "stork raven woodpecker peacock swallow magpie heron turkey bat ostrich flamingo seagull".split(),
    "bug": "bee butterfly ladybug beetle ant spider moth dragonfly firefly caterpillar snail worm "
           "bumblebee".split(),
    "fish": "fish whale dolphin crab octopus turtle seal shark seahorse starfish goldfish lobster squid eel "
            "salmon jellyfish mermaid".split(),
    "person": "girl boy baker miller farmer king queen prince princess knight sailor fisherman shepherd tailor "
              "painter teacher cook gardener giant wizard witch fairy elf dwarf pirate carpenter "
              "shoemaker woodcutter musician clown captain hunter doctor nurse postman inventor "
              "singer dancer blacksmith weaver potter gnome beggar merchant poet astronaut grandmother "
              "grandfather".split(),
    "thing": "robot teapot lantern train boat kite drum clock bell candle spoon cup broom toy doll puppet "
             "teddy bear|snowman|scarecrow|cloud|star|raindrop|snowflake|leaf|acorn|pumpkin|tree|flower|ship|"
             "car|truck|bus|tractor|bicycle|balloon|umbrella|shoe|pencil|book|button|ghost|monster|"
             "pebble|rainbow|mushroom|potato|carrot|cookie|pancake",
}
KINDS["thing"] = KINDS["thing"].replace("teddy bear|", "@", 1).split("@")[0].split() + ["teddy bear"] + \
    KINDS["thing"].split("teddy bear|")[1].split("|")
UNSEEN = ["walrus", "pelican", "yak", "lemur", "gecko", "puffin", "barrel", "violin", "plumber", "wagon",
          "lemon", "pillow"]                                  # never in training: an extra, harder test
SHE = set("hen cow queen princess witch fairy mermaid girl nurse grandmother duckling doll goose ladybug".split())
HE = set("king prince knight fisherman rooster boy wizard ox snowman postman grandfather".split())
MOVE = {"land": ("walked", "walk", "walking"), "hop": ("hopped", "hop", "hopping"),
        "bird": ("flew", "fly", "flying"), "bug": ("went", "go", "going"), "fish": ("swam", "swim", "swimming"),
        "person": ("walked", "walk", "walking"), "thing": ("went", "go", "going")}
CREEP = {"penguin", "ostrich", "turkey", "hen", "rooster"}     # birds that walk

# adjective: sentences that show it (may be empty)
ADJ = {
    "shy": ["{He} was so shy that {he} only spoke in a whisper.", "When someone said hello, {he} looked down and hid {his} face."],
    "brave": ["{He} was not afraid of anything, not even of thunder.", "Whenever there was danger, {he} went first."],
    "clever": ["{He} could find an answer to almost any riddle.", "{He} was always full of clever ideas."],
    "lazy": ["Most of all, {he} liked to lie in the sun and do nothing.", "{He} never got up before noon."],
    "curious": ["{He} asked questions from morning to night.", "{He} wanted to know what was behind every corner."],
    "lonely": ["{He} had nobody to talk to.", "In the evening, {he} often talked to {himself}."],
    "cheerful": ["{He} hummed a little tune all day long.", "{He} smiled at everyone {he} met."],
    "grumpy": ["{He} grumbled about the rain, and {he} grumbled about the sun.", "Hardly anyone had ever seen {him} smile."],
    "kind": ["{He} always had a good word for everyone.", "If somebody was in trouble, {he} was there to help."],
    "greedy": ["However much {he} had, {he} always wanted more.", "{He} did not like to share."],
    "proud": ["{He} held {his} head high and thought {he} was better than the others.", "{He} liked to hear nice things about {himself}."],
    "quiet": ["{He} did not say much, but {he} listened very well.", "{He} liked the silence of the early morning."],
    "noisy": ["You could hear {him} from far away.", "{He} even made noise when {he} was asleep."],
    "clumsy": ["{He} bumped into things and dropped everything {he} held.", "{He} tripped over something every day."],
    "hungry": ["{He} thought about food all day.", "{His} tummy rumbled even after dinner."],
    "sleepy": ["{He} yawned at breakfast and {he} yawned at dinner.", "{He} could fall asleep anywhere."],
    "forgetful": ["{He} forgot {his} own birthday every year.", "{He} never knew where {he} had put {his} things."],
    "patient": ["{He} could wait for a whole day and never complain.", "{He} never hurried."],
    "impatient": ["{He} could not wait for anything.", "\"Hurry up!\" was what {he} said most."],
    "polite": ["{He} never forgot to say please and thank you.", "{He} greeted even the smallest ant."],
    "silly": ["{He} loved to make the others laugh.", "{He} liked to wear {his} hat upside down."],
    "careful": ["{He} looked twice before every step.", "{He} checked everything three times."],
    "careless": ["{He} never looked where {he} was going.", "{He} left {his} things everywhere."],
    "honest": ["{He} always told the truth, even when it was hard.", "{He} had never told a lie."],
    "stubborn": ["When {he} had made up {his} mind, nobody could change it.", "\"No\" was {his} favorite word."],
    "tiny": ["{He} was so small that hardly anyone saw {him}.", "{He} was no bigger than a thumb."],
    "huge": ["{He} was so big that the ground shook when {he} moved.", "{His} shadow was as big as a house."],
    "old": ["{He} had seen many summers and many winters.", "{He} knew all the old stories."],
    "young": ["Everything in the world was still new to {him}.", "{He} still had a lot to learn."],
    "wise": ["Many came to ask {him} for advice.", "{He} thought long before {he} spoke."],
    "poor": ["{He} had almost nothing, but {he} did not complain.", "All {he} had was one old coat."],
    "rich": ["{He} had more things than {he} could count.", "{His} house was full of beautiful things."],
    "playful": ["{He} turned everything into a game.", "{He} would rather play than eat."],
    "dreamy": ["{He} spent hours looking at the clouds.", "{His} thoughts were always far away."],
    "timid": ["Even a falling leaf made {him} jump.", "{He} was afraid of {his} own shadow."],
    "bold": ["{He} liked to try things that no one had tried before.", "{He} was never afraid to ask."],
    "gentle": ["{He} was as soft as a feather with everyone.", "{He} would not hurt a fly."],
    "busy": ["From sunrise to sunset, {he} always had something to do.", "{He} never sat still."],
    "messy": ["{His} home was so untidy that {he} could not find the door.", "{He} was always covered in mud."],
    "tidy": ["In {his} home, everything had its own place.", "{He} swept the floor twice a day."],
    "funny": ["{He} knew a joke for every day of the year.", "{His} jokes made everyone laugh."],
    "sad": ["{He} had not laughed for a long time.", "Nobody knew why {he} sighed so often."],
    "happy": ["{He} woke up with a smile every morning.", "{He} was happy with the little {he} had."],
    "jealous": ["{He} always wanted what the others had.", "It made {him} cross when others were praised."],
    "friendly": ["{He} waved to everyone who passed by.", "{He} was never too busy for a chat."],
    "nervous": ["{His} heart beat fast at every little sound.", "{He} worried about tomorrow, and the day after."],
    "fast": ["{He} was quicker than the wind.", "No one could catch {him}."],
    "slow": ["{He} needed a whole morning to get to the next corner.", "{He} did everything slowly, but {he} did it well."],
    "helpful": ["{He} carried heavy bags for the neighbors.", "{He} liked nothing better than to be useful."],
    "lucky": ["Good things seemed to fall into {his} lap.", "{He} found something nice almost every day."],
    "unlucky": ["Whatever {he} began, something went wrong.", "It always rained on {his} birthday."],
    "strong": ["{He} could lift a stone that three others could not move.", "{He} was the strongest of all."],
    "weak": ["{He} could not lift very much.", "{He} got tired after a few steps."],
    "mischievous": ["{He} liked to play little tricks on the others.", "When something strange happened, it was mostly {him}."],
    "restless": ["{He} could never stay in one place for long.", "{He} always wanted to see what came next."],
    "thoughtful": ["{He} always remembered what the others liked.", "{He} liked to sit and think."],
    "generous": ["{He} gave away half of everything {he} had.", "{His} door was open to everyone."],
    "blue": ["{He} was as blue as the summer sky."], "red": ["{He} was as red as a ripe apple."],
    "green": ["{He} was as green as new grass."], "golden": ["{He} shone in the sun like gold."],
    "white": ["{He} was as white as fresh snow."], "gray": ["{He} was as gray as a rainy morning."],
    "purple": ["{He} was as purple as a plum."], "yellow": ["{He} was as yellow as butter."],
    "spotted": ["{He} had so many spots that nobody could count them."], "striped": ["{He} was very proud of {his} stripes."],
    "magic": ["Strange little lights danced around {him} at night.", "Some said that {he} could make wishes come true."],
    "little": [], "small": [], "big": [], "pretty": [], "good": [], "lovely": [], "merry": [], "plain": [],
    "jolly": ["{He} laughed so loudly that the birds flew up."], "bright": [], "calm": [], "eager": [], "fine": [],
    "odd": ["{He} was not quite like the others."], "strange": ["{He} was not like anyone else."], "sweet": [], "tired": [],
    "wild": [], "young and brave": [], "small and round": [], "tall": ["{He} could look over every fence."],
    "short": ["{He} had to stand on a box to see over the fence."], "round": ["{He} was as round as a ball."],
    "thin": ["{He} was as thin as a stick."], "elegant": [], "famous": ["Everyone for miles around knew {his} name."],
    "modest": ["{He} never talked about {himself}."], "moody": ["{He} was happy one minute and cross the next."],
    "neat": [], "noble": [], "orange": ["{He} was as orange as the evening sun."], "pink": ["{He} was as pink as a rose."],
    "black": ["{He} was as black as the night."], "brown": ["{He} was as brown as a nut."],
    "silver": ["{He} shone like the moon."], "dusty": [], "fearful": ["{He} always saw danger where there was none."],
    "fearless": ["{He} had never been afraid in {his} life."], "loyal": ["{He} never left a friend alone."],
    "selfish": ["{He} thought only of {himself}."], "trusting": ["{He} believed every word that others said."],
    "talkative": ["{He} talked and talked, even when no one was listening."], "gloomy": ["{He} was sure that it would rain every day."],
    "hopeful": ["{He} was sure that tomorrow would be a good day."], "homeless": ["Every night, {he} slept in a different place."],
    "ordinary": ["There was nothing special about {him}, or so {he} thought."],
    "adventurous": ["{He} dreamed of faraway lands."], "sensible": [], "naughty": ["{He} did not always do what {he} was told."],
}

# places: (preposition, noun, adjectives); water places are for the fish
LAND = """by lake quiet,blue,deep,little,silver,cold|by river wide,slow,green,old|beside stream clear,little,cold,bubbling|
near pond round,muddy,small,still|in forest dark,green,old,deep,pine|at the edge of wood quiet,green,little|in meadow sunny,green,wide,flowery|
on hill high,green,windy,round|on mountain tall,snowy,high,lonely|in valley green,hidden,quiet,deep|in village small,sleepy,old,pretty|
in town busy,little,old,noisy|on farm big,old,little,sunny|in mill old,dusty,creaky|in castle gray,old,grand,cold|
in lighthouse white,tall,lonely,old|near harbor busy,small,windy|on beach sandy,long,sunny|on island tiny,green,far,lonely|
in desert hot,wide,dry|in cave dark,warm,deep,dry|in orchard old,sunny,sweet|in garden pretty,wild,secret,small|
in barn red,warm,old,big|in cottage cozy,small,white,old|in tower tall,round,stone,crooked|under bridge stone,wooden,old|
near market busy,noisy,colorful|behind bakery warm,little,old|behind school small,red,old|in library quiet,old,dusty|
in jungle hot,green,thick,wild|near swamp misty,green,dark|in field wide,golden,empty|on cliff steep,high,windy|
near waterfall loud,silver,hidden|beside road long,dusty,winding|in inn old,cheerful,small|near station small,busy,old|
in windmill white,old,creaky|beside well deep,old,stone|in park green,quiet,large|under bush thick,thorny,big|
in tree hollow,tall,old,huge|in haystack warm,golden,big|in tree house small,secret,wooden|in palace golden,grand,white|
on ship old,big,wooden|in attic dusty,dark,cozy|in kitchen warm,tidy,big|in toy shop bright,old,little|
in workshop busy,dusty,small|in museum big,quiet,old|in circus merry,small,colorful|in bamboo grove green,quiet|
in vineyard sunny,old|on snowy plain wide,white|near volcano sleepy,old,smoking|on cloud soft,white,fluffy|
in cellar cool,dark|near fountain stone,pretty,old|in bookshop small,crowded|in greenhouse warm,bright|
on rooftop flat,high,sunny|behind wall old,long,stone|under rock flat,big,gray|in burrow cozy,deep,warm|
in nest soft,round,little|near railway old,rusty|in hut wooden,small,lonely|at the foot of mountain tall,blue,old|
at the end of lane narrow,quiet,long|on the top of tower high,windy|in backyard small,sunny""".replace("\n", "")
WATER = """in pond round,muddy,small,still|in lake quiet,blue,deep,cold|in river wide,slow,green|in sea deep,blue,warm,cold|
in bay sunny,quiet,blue|near coral reef bright,colorful,old|at the bottom of lagoon blue,warm|in sea cave dark,hidden,deep|
near shipwreck old,lonely|near island tiny,green,far|in stream clear,cold,bubbling|in ocean wide,deep,blue|
under pier old,wooden|in harbor busy,small""".replace("\n", "")


def _places(text):
    out = []
    for item in text.split("|"):
        head, adjs = item.rsplit(" ", 1)
        for prep in ("at the edge of", "at the bottom of", "at the foot of", "at the end of", "on the top of"):
            if head.startswith(prep + " "):
                break
        else:
            prep = head.split(" ", 1)[0]
        out.append((prep, head[len(prep) + 1:], adjs.split(",")))
    return out


LAND, WATER = _places(LAND), _places(WATER)

GIRLS = """Ada Alba Alice Alma Amy Anna Annie Ava Bea Bella Bess Betty Bonnie Cara Carla Cleo Clara Coco Cora Daisy Dana Della Dora
Dot Edie Ella Elsa Elsie Emma Erin Eva Eve Fay Fern Flora Freya Gemma Gina Gita Grace Greta Gwen Hana Hazel Heidi Holly Ida
Ines Iris Isla Ivy Jade Jane Jenny Jill Joan Josie Joy Julia June Kate Kiki Kira Lana Lara Lea Lena Lila Lily Lina Lisa
Lola Lottie Lucy Lulu Luna Mabel Maia Mara Maria May Meg Mia Mila Millie Mimi Mina Minnie Miri Molly Mona Nan Nancy
Nell Nelly Nina Nora Olga Olive Pam Pearl Peggy Penny Petra Pia Pippa Polly Poppy Rita Robin Rosa Rose Rosie Ruby Ruth
Sally Sara Sofia Stella Sue Susie Tara Tess Tilda Tilly Tina Vera Vicky Viola Wanda Willa Wilma Winnie Yara Zara Zelda
Zoe Zuzu""".split()
BOYS = """Abe Adam Al Alfie Amos Andy Anton Arlo Arthur Axel Barney Basil Ben Benny Bert Bill Billy Bob Bobby Boris Bruno Carl Casper
Charlie Clem Cole Colin Dan Danny Dave Dexter Dino Duncan Ed Eddie Edgar Eli Emil Ernie Eric Ezra Felix Finn Frank
Fred Freddy Fritz Gabe Gary George Gil Gus Hal Hank Hans Harry Harvey Henry Hugo Hunter Ian Igor Ira Ivan Jack Jake Jasper
Jem Jim Joe Joel John Jonas Josh Karl Ken Kit Kurt Lars Leo Leon Levi Liam Linus Louis Luca Ludo Luke Mack Manny Marco
Mark Max Mickey Miles Milo Mo Monty Moritz Moses Ned Nico Noah Nick Odin Olaf Oliver Omar Oscar Oskar Otis Otto Owen
Paco Paul Percy Pete Peter Phil Pablo Quinn Ralph Ray Remy Rex Rob Rocky Roger Rolf Rory Rufus Rudy Sam Sammy Seth Sid Simon
Stan Sven Ted Teddy Theo Tim Timmy Toby Todd Tom Tommy Tony Umar Victor Viktor Vito Wally Walter Will Willy Yuri Zack Ziggy""".split()


def _made_up():
    rnd, out = random.Random(7), []
    known = set(GIRLS) | set(BOYS)
    while len(out) < 160:
        w = rnd.choice("B D F G K L M N P R S T V Z Br Tr Pl Fl Gr Sn Tw".split()) + rnd.choice("a e i o u".split()) + \
            rnd.choice("b d l m n p r t z bb ll mm nn pp rr tt nd mb lk".split()) + \
            rnd.choice("o a i in el on y is u ik ora ina ino ella".split())
        if w not in known and len(w) < 8:
            known.add(w)
            out.append(w)
    return out


ANY = _made_up() + "Pip Biscuit Button Pepper Pickle Muffin Nutmeg Pebble Patch Sparky Bubbles Ginger Acorn Bramble Clover Cocoa Honey " \
    "Maple Misty Peanut Pumpkin Rusty Scout Shadow Smoky Snowy Sunny Tiny Toffee Waffles Whiskers Ziggy Bingo Dash Fudge Fuzzy Jojo " \
    "Kipper Lucky Mango Moss Noodle Oats Plum Puddle Quill Rascal Ripple Saffron Skip Tumble Twig Velvet Wink".split()

HELPER_ADJ = "kind old wise friendly small gentle cheerful young clever quiet big little".split()
FOODS = "apple pie,warm bread,honey cakes,sweet berries,pumpkin soup,fresh pears,cheese,plum jam,carrot cake,hot soup,nuts," \
    "cherries,pancakes,lemonade,blueberry tart,corn bread,roasted apples,strawberries,sweet buns,noodle soup".split(",")


def an(s):
    low = s.lower()
    vowel = low[0] in "aeiou" and not low.startswith(("uni", "use", "one"))
    return ("an " if vowel or low.startswith(("honest", "hour")) else "a ") + s


def held_out(adj, kind):
    return zlib.crc32(f"{adj}|{kind}".encode()) % 12 == 0


class Slots(dict):
    """Names to text.  {He} is {he} with a capital, {a_x} is x with its article."""
    def __missing__(self, key):
        if key[:2] in ("a_", "A_"):
            v = an(self[key[2:]])
            return v[0].upper() + v[1:] if key[0] == "A" else v
        if key[:4] == "the_":
            return "the " + re.sub("^an? ", "", self[key[4:]])
        low = key[0].lower() + key[1:]
        if low == key:
            raise KeyError(key)
        v = fill(self[low], self)
        return v[0].upper() + v[1:]


def fill(t, s):
    while "{" in t:
        t = t.format_map(s)
    return t


def cap(t):
    i = 1 if t[0] == '"' else 0
    return t[:i] + t[i].upper() + t[i + 1:]


# ---------------------------------------------------------------- shared beats

OPEN = [
    "Once upon a time, there was {ak} named {N}. {He} lived {P}.",
    "Once upon a time, {ak} named {N} lived {P}.",
    "Once upon a time, there lived {ak} {P}. {His} name was {N}.",
    "Once upon a time, there was {ak} who lived {P}. {His} name was {N}.",
    "Once there was {ak} called {N}, who lived {P}.",
    "{P0}, there lived {ak}. {His} name was {N}.",
    "{P0}, there once lived {ak} named {N}.",
    "There was once {ak} who lived {P}. Everyone called {him} {N}.",
    "Long ago, {ak} lived {P}. {His} name was {N}.",
    "Long, long ago, {ak} called {N} lived {P}.",
    "{N} was {ak} who lived {P}.",
    "This is the story of {N}, {ak} who lived {P}.",
    "Many years ago, {ak} named {N} made {his} home {P}.",
    "Far away, {P}, lived {ak} named {N}.",
]
MEET = [   # the hero is in trouble, a helper comes
    "Just then, {ah} came by. \"What is the matter?\" asked {hr}.",
    "Soon {ah} came along. \"Why do you look so sad, {N}?\" {hhe} asked.",
    "{Ah} saw {him} and stopped. \"Can I help you?\" asked {hr}.",
    "{Ah} was passing by and heard {N} sigh. \"Tell me what is wrong,\" {hhe} said.",
    "Then {N} met {ah}. \"You look worried,\" said {hr}.",
    "{N} sat down and cried a little. {Ah} heard it and sat down next to {him}.",
    "After a while, {N} met {ah} and told {hhim} everything.",
    "\"I need help,\" said {N}. So {he} went to see {ah}.",
    "That afternoon, {ah} came to visit. {N} told {hhim} about the trouble.",
]
GLAD = [   # a calm meeting
    "One day, {N} met {ah}.", "One morning, {ah} came by.", "On the way, {N} met {ah}.", "There {he} met {ah}.",
    "Then {ah} came along.", "Not far away lived {ah}.",
]
END = {
    "friends": ["From that day on, {N} and {hr} were the best of friends.", "After that, {N} and {hr} met every day.",
                "And that is how {N} and {hr} became friends.", "{N} and {hr} stayed friends for the rest of their lives.",
                "Since that day, you never saw {N} without {hr}.", "Now {N} had a true friend, and so had {hr}."],
    "feast": ["That evening, they had a big feast with {food} and {food2}.", "In the end, there was a feast for everyone, with {food} and {food2}.",
              "To celebrate, {N} and {hr} made a feast of {food}, {food2} and {food3}.",
              "Then they all sat down to a feast, and {N} ate so much {food} that {he} could hardly move."],
    "song": ["Then {N} sang a happy song, and {hr} sang along.", "They sang a song all the way home.",
             "That evening, everyone sang a song about {N} the {k}.", "{Hr} made up a song about that day, and they still sing it {Pd}."],
    "sleep": ["That night, {N} fell asleep with a smile.", "When the moon came up, {N} closed {his} eyes and slept until morning.",
              "Tired and happy, {N} curled up {Pd} and fell fast asleep.", "Then {he} yawned, said good night to {hr} and fell asleep."],
    "hug": ["{N} gave {hr} a big hug.", "Then {N} and {hr} hugged each other for a long time.",
            "\"Thank you,\" said {N}, and {he} gave {hr} the biggest hug in the world.", "{Hr} smiled, and {N} hugged {hhim} tightly."],
    "stars": ["In the evening, {N} and {hr} sat side by side and looked at the stars.", "That night, they counted the stars together until {hr} fell asleep.",
              "Above them, the stars came out one by one, and {N} was happy.", "And when the stars came out, {N} made no wish, because {he} had all {he} needed."],
    "lesson": ["And {N} never forgot that {moral}.", "So {N} learned that {moral}.", "That day, {N} learned something important: {moral}.",
               "\"Now I know that {moral},\" said {N}.", "Ever since then, {N} has told everyone that {moral}."],
    "dance": ["Then they danced until the sun went down.", "{N} was so happy that {he} danced all around {hr}.",
              "That evening, {N} and {hr} danced under the moon.", "Everybody came out and danced, and {N} danced most of all."],
    "happy": ["And they lived happily ever after.", "And {N} lived happily ever after.", "{N} had never been so happy before.",
              "It was the best day of {his} life.", "And if you go there today, you may still see {N} and {hr} laughing together."],
}
END_ASK = {"friends": ["that ends with a new friendship", "where two become friends at the end", "that ends with friends"],
           "feast": ["that ends with a feast", "with a feast at the end"], "song": ["that ends with a song", "with a song at the end"],
           "sleep": ["where the hero falls asleep at the end", "that ends with sleep", "that ends with everyone going to sleep"],
           "hug": ["that ends with a hug", "with a hug at the end"], "stars": ["that ends under the stars", "with stars at the end"],
           "lesson": ["that ends with a lesson", "with a lesson at the end"], "dance": ["that ends with a dance", "with a dance at the end"],
           "happy": ["with a happy ending", "that ends well", "that ends happily"]}

PLOTS = []
ALL = "land hop bird bug fish person thing"
DRY = "land hop bird bug person thing"
EATERS = "land hop bird bug person"


def plot(name, cats, topics, moral, slots, beats, qa):
    PLOTS.append(dict(name=name, cats=set(cats.split()), topics=topics, moral=moral, slots=slots, beats=beats, qa=qa))


def S(keys, text):
    """rows 'a; b; c' to dicts"""
    keys = keys.split()
    out = []
    for row in text.strip().split("\n"):
        vals = [v.strip() for v in row.split(";")]
        assert len(vals) == len(keys), row
        out.append(dict(zip(keys, vals)))
    return out


# ---------------------------------------------------------------- plots

plot("lost", ALL, ["a lost thing", "searching", "losing something"], "lost things come back when friends look together",
     S("obj spot how", """
red scarf; the old gate; it hung on a nail
silver bell; the big oak tree; it lay in the grass
wooden whistle; the stone steps; it lay under a leaf
blue button; the broken fence; it was stuck in a crack
little drum; the hay cart; it was under some straw
golden key; the well; it lay between two stones
picture book; the apple tree; it lay open on the ground
warm blanket; the bench; someone had folded it up
toy boat; the water; it was caught in the reeds
shiny stone; the sandy path; it sparkled in the sun
green hat; the rose bush; it was caught on a thorn
lucky coin; the market; it had rolled under a box
glass marble; the flat rock; it was hidden in the moss
yellow ribbon; the willow tree; it was tied to a twig
paper crown; the hill; the wind had blown it there
brass horn; the little bridge; it lay in the mud"""),
     [["{N} had {a_obj} that {he} loved more than anything.", "{His} dearest treasure was {a_obj}.", "Every day, {N} played with {his} {obj}.",
       "{His} grandmother had once given {him} {a_obj}."],
      ["But one morning, the {obj} was gone.", "Then, one windy day, {N} lost {his} {obj}.", "One day, {he} looked for the {obj} and could not find it.",
       "But one evening, {N} noticed that {his} {obj} was missing."],
      ["{He} looked high and low, but it was nowhere.", "{N} searched all day and did not find it.", "{He} looked in every corner, but there was no {obj}.", ""],
      "|", "MEET",
      ["\"My {obj} is gone,\" said {N}.", "\"I have lost my {obj},\" said {N} sadly.", "\"I can't find my {obj} anywhere,\" said {N}."],
      ["\"Where did you have it last?\" asked {hr}. {N} thought hard. \"Near {spot},\" {he} said.", "\"Let us go back the way you came,\" said {hr}. So they went to {spot}.",
       "\"Two can see more than one,\" said {hr}. They looked together until they came to {spot}.", "\"Think of all the places where you have been,\" said {hr}. Then {N} remembered {spot}."],
      "|",
      ["And there was the {obj}! {How}.", "They hurried there, and {how}.", "{Hr} was the first to see the {obj}: {how}.", "\"Look!\" cried {hr}. There was the {obj}, for {how}."],
      ["{N} jumped for joy.", "\"You found it!\" laughed {N}.", "{N} held {his} {obj} tightly and laughed.", "\"Thank you, {hr2}!\" said {N}."], "END"],
     [("What did {N} lose?|What was lost?|What was {N} looking for?", "{N} lost {his} {obj}."),
      ("Where was the {obj}?|Where did they find the {obj}?", "They found the {obj} near {spot}.")])

plot("learn", ALL, ["learning something new", "practice", "not giving up"], "nobody is good at something on the first day",
     S("skill fail tip done", """
sing; only a squeak came out; Take a deep breath and think of something you love; {his} song was so sweet that even the birds were quiet
dance; {he} fell over and landed on {his} nose; Do not look at the ground, just listen to the music; {N} turned and turned and did not fall once
whistle; only air came out; Make your mouth small and round; a clear whistle rang through the air
paint; the picture was one big gray spot; Use only one color at a time; {N} had painted a picture of the sunrise
read; the letters danced before {his} eyes; Begin with one letter every day; {N} read a whole story out loud
juggle; everything fell on {his} head; Start with only two balls; {N} kept five balls in the air
tell stories; {he} forgot the ending every time; Close your eyes and see the story first; everyone listened to {his} story until the end
play the flute; it sounded like an angry cat; Play softly, as if someone were asleep; {N} played a tune that made everybody smile
play the drum; {he} was always too fast; Listen to your own heart and follow it; {N} drummed as steadily as the rain
write; the ink went everywhere; Hold the pen as gently as a feather; {N} wrote {his} own name without one spot
count to a hundred; {he} always got lost after twenty; Go in steps of ten; {N} counted to a hundred without a mistake
tie a knot; everything came apart again; Over, under and through the middle; {N} tied a knot that held
bake bread; the bread was as hard as a stone; Let the dough rest for a while; the bread was soft and golden
tell jokes; nobody laughed; Wait a little before the last word; everyone laughed until they cried
build sand castles; they always fell down; Use wet sand and go slowly; {N} had built a castle with four towers"""),
     [["More than anything, {N} wanted to learn to {skill}.", "{N} had one great wish: {he} wanted to {skill}.", "{His} dream was to {skill} like the others.",
       "One day, {N} decided to learn to {skill}."],
      ["But when {he} tried, {fail}.", "{He} tried it again and again, but {fail}.", "The first time, {fail}.", "{N} practiced all morning, but {fail}."],
      ["\"I will never learn it,\" {he} said.", "The others laughed, and {N} wanted to give up.", "{N} felt very foolish.", "{He} was almost ready to give up."],
      "|", "MEET",
      ["\"I want to {skill}, but I can't,\" said {N}.", "\"I will never be able to {skill},\" said {N}.", "\"Everyone can {skill}, only I can't,\" {N} said."],
      ["\"{tip},\" said {hr}.", "{Hr} smiled and said, \"{tip}.\"", "\"I will tell you a secret,\" said {hr}. \"{tip}.\"", "\"It was hard for me too,\" said {hr}. \"{tip}.\""],
      ["So {N} practiced every day.", "They practiced together every evening.", "{N} tried again, a little better each time.", "For a whole week, {N} did nothing else.", "It took many days, but {N} did not stop."],
      "|",
      ["And at last, {done}.", "Then, one fine day, {done}.", "Soon {done}.", "When spring came, {done}.", "In the end, {done}."],
      ["\"I did it!\" cried {N}.", "\"I knew you could do it,\" said {hr}.", "{Hr} clapped loudly.", "{N} could hardly believe it.", "How proud {he} was!"], "END"],
     [("What did {N} want to learn?|What did {N} learn?|What was {N}'s wish?", "{N} wanted to learn to {skill}."),
      ("Who taught {N}?|Who helped {N} to learn?", "{Ah} helped {N} to learn it.")])

plot("fear", DRY, ["being afraid", "courage", "being brave"], "being brave means to go on even when you are afraid",
     S("fear hide show", """
the dark; {N} hid under the blanket; Look, the dark is only the place where the stars live
thunder; {N} put both hands over {his} ears; Thunder is only the sky clapping for the rain
high places; {N} never went up a hill; Do not look down, look at me
deep water; {N} stayed far away from the shore; Start where the water is warm and shallow
the wind; {N} locked the door and the windows; Listen, the wind is singing for us
strangers; {N} ran away whenever someone new came; Every friend was a stranger once
spiders; {N} ran out of the room; Look how beautifully she makes her web
shadows; {N} did not dare to move; A shadow only does what you do
fire; {N} shivered in the cold; A small fire is a friend if you watch it well
the snow; {N} did not go out all winter; Every flake is a tiny white star
big dogs; {N} hid behind a tree; Most of them only want to play
the old bridge; {N} always took the long way round; I will hold you, step by step
the fog; {N} stayed at home all day; Fog is only a cloud that came to visit
loud noises; {N} jumped and hid in a corner; Make a louder noise yourself and laugh"""),
     [["There was only one thing wrong: {N} was afraid of {fear}.", "{N} had a secret: {he} was afraid of {fear}.", "More than anything else, {he} feared {fear}.",
       "{N} was terribly afraid of {fear}."],
      ["Each time, {hide}.", "Because of {fear}, {hide}.", "It was so bad that {hide}.", "While the others played outside, {hide}."],
      "|",
      ["One day, {ah} asked, \"Why are you trembling, {N}?\"", "{Ah} saw it and came closer. \"What are you afraid of?\" {hhe} asked.",
       "One evening, {ah} found {N} all alone and shaking.", "\"What is wrong?\" asked {ah} one day."],
      ["\"I am afraid of {fear},\" whispered {N}.", "\"It is {fear},\" said {N}. \"Please don't laugh.\"", "\"Don't tell anyone,\" said {N}, \"but I am afraid of {fear}.\""],
      ["{Hr} did not laugh. \"{show},\" {hhe} said.", "\"I used to be afraid too,\" said {hr}. \"{show}.\"", "\"Come with me,\" said {hr}. \"{show}.\"",
       "{Hr} took {N} by the hand. \"{show},\" {hhe} said softly."],
      "|",
      ["{N} took one small step, and then another.", "{N}'s heart beat fast, but {he} stayed.", "At first {N} trembled, but then {he} opened {his} eyes.", "{N} took a deep breath and tried."],
      ["And nothing bad happened at all.", "After a while, it was not so bad.", "To {his} surprise, {he} began to like it.", "Suddenly {N} had to laugh. \"Is that all?\" {he} asked."],
      ["Now {fear} did not frighten {him} any more.", "{N} was not afraid of {fear} any longer.", "\"I was brave!\" cried {N}.", "\"You see, you are brave,\" said {hr}."], "END"],
     [("What was {N} afraid of?|What did {N} fear?", "{N} was afraid of {fear}.")])

plot("friend", ALL, ["friendship", "finding a friend", "being alone"], "you find a friend when you are one",
     S("game try hers", """
hide and seek; {N} asked the ants, but they were too busy; had nobody to play with either
catch; {N} asked the old crow, but she only wanted to sleep; had just moved here
cards; {N} asked the sheep, but they only wanted to eat; always played alone
guessing games; {N} asked the cat, but she walked away; was too shy to ask anyone
pirates; {N} asked the geese, but they had no time; had lost all the others in a storm
treasure hunt; {N} asked the frogs, but they did not listen; did not know a single soul here
kings and queens; {N} asked the moon, but the moon did not answer; had been sad for a long time
tag; {N} asked the bees, but they had work to do; thought that nobody liked {hhim}
ball; {N} asked the goats, but they only laughed; came from far away
riddles; {N} asked the echo, but it only repeated every word; was bored as well"""),
     [["{N} wished for a friend.", "All {N} wanted was a friend.", "{N} had everything except a friend.", "\"If only I had a friend to play {game} with,\" thought {N}.", "It is no fun to play {game} alone, and {N} had no friend."],
      ["{try}.", "First {try}.", "One morning, {try}."],
      ["So {N} sat alone and sighed.", "{N} was sadder than before.", "\"Nobody wants to play with me,\" {he} said.", "A tear ran down {his} cheek."],
      "|",
      ["Then {he} heard someone cry. It was {ah}.", "Behind a stone, {he} saw {ah}, all alone.", "That evening, {N} saw {ah} sitting by the road.", "Then {ah} looked around the corner."],
      ["\"Hello,\" said {N}. \"Are you alone too?\"", "{N} took all {his} courage and said hello.", "\"Why are you sad?\" asked {N}.", "\"Who are you?\" asked {N}."],
      ["{Hr} {hers}.", "It turned out that {hr} {hers}.", "{Hr} nodded. {Hhe} {hers}.", "{Hr} told {him} that {hhe} {hers}."],
      ["\"Do you want to play {game}?\" asked {N}.", "\"Shall we play {game}?\" asked {hr}.", "\"I know how to play {game},\" said {hr}."],
      "|",
      ["They played {game} until it was dark.", "They played all afternoon and laughed a lot.", "{Hr} won the first game, and {N} won the second.", "Nobody had ever played {game} as happily as those two."],
      ["\"Will you come again tomorrow?\" asked {N}. \"Of course,\" said {hr}.", "\"Tomorrow we play again,\" said {hr}.", "Now {N} was not alone any more.", ""], "END"],
     [("What did they play?|What game did they play?|Which game did {N} play?", "They played {game}."),
      ("What did {N} want?|What was {N}'s wish?", "{N} wanted to have a friend.")])

plot("gift", DRY, ["a birthday", "a present", "giving"], "the best gifts are made with love",
     S("who made of", """
mother; a necklace; little shells
grandfather; a pair of slippers; soft wool
grandmother; a crown; spring flowers
father; a walking stick; a strong branch
sister; a doll; straw and ribbons
brother; a little ship; a walnut shell
teacher; a basket; long grass
uncle; a warm scarf; blue wool
aunt; a tiny chair; old wood
neighbor; a lantern; red paper
little cousin; a mobile; feathers and string
best friend; a bracelet; shiny beads"""),
     [["Tomorrow was the birthday of {his} {who}.", "It was almost the birthday of {N}'s {who}.", "{N}'s {who} had a birthday soon.", "{N} wanted to give {his} {who} a birthday present."],
      ["But {N} had no money for a present.", "But {N} had only one small coin.", "{N} looked in all the shops, but everything cost too much.", "\"What can I give?\" {N} asked {himself}. {His} pockets were empty."],
      "|", "MEET",
      ["\"I have no present for my {who},\" said {N}.", "\"My {who} has a birthday, and I have nothing to give,\" {N} said."],
      ["\"You don't need money,\" said {hr}. \"You can make something.\"", "{Hr} thought for a while. \"We could make {made},\" {hhe} said.", "\"The best presents are not bought,\" said {hr}.",
       "\"I have an idea,\" said {hr}, and whispered something into {N}'s ear."],
      ["Together, they collected {of}.", "They went out and found {of}.", "{Hr} brought {of}, and they began to work.", "First they needed {of}."],
      ["They worked until late at night, and then {made} was ready.", "Out of {of} they made {made}.", "With great care, {N} made {made}.", "By the evening, {N} had made {made} all by {himself}."],
      "|",
      ["The next day, {N} gave it to {his} {who}.", "When the birthday came, {N} held out the present.", "In the morning, {N} put {made} on the table.", "{N}'s {who} opened the present very slowly."],
      ["\"It is the most beautiful gift of all!\" said {his} {who}.", "\"Did you make this for me?\" asked {his} {who}, with tears of joy.", "\"I will keep it forever,\" said {his} {who}.", "{His} {who} laughed for joy and kissed {him}."], "END"],
     [("What did {N} make?|What was the present?|What present did {N} make?", "{N} made {made} out of {of}."),
      ("Whose birthday was it?|Who had a birthday?", "It was the birthday of {N}'s {who}.")])

plot("journey", ALL, ["a journey", "travel", "a dream", "an adventure"], "the longest way begins with one small step",
     S("see block over", """
the sea; a thick forest with no path; led the way from tree to tree
a rainbow from close by; a wide field of thorns; knew a way around it
the place where the sun rises; a dark night without a moon; held up a little light
the big city; a road that split in two; remembered the right way
the first snow; a long wall of stone; knew of a small hole in it
the highest waterfall; a steep hill; pushed from behind
the northern lights; a cold and icy wind; shared a warm cloak
the whales; a field of tall grass; went ahead and called out
the oldest tree in the world; a thick fog; rang a bell, so they did not lose each other
the great lighthouse; a path full of mud; laid down old planks
the dancing lights; a valley full of echoes; could tell the true sound from the false
the field of a thousand flowers; a gate that was locked; had the key
the island of birds; a wild storm; knew a cave where they could wait
the end of the rainbow; a pile of rocks; moved the rocks one by one"""),
     [["All {his} life, {N} had wanted to see {see}.", "{N} dreamed of {see} every night.", "One day, {N} heard about {see}. \"I must see that,\" {he} said.", "More than anything, {N} wanted to see {see}."],
      ["So {he} packed a small bag and set out.", "One morning, {he} said goodbye and left.", "So one day, {N} began a long journey.", "\"It is too far,\" said the others, but {N} went anyway."],
      "|",
      ["{He} {walked} all day, until {he} came to {block}.", "After three days, {he} came to {block}.", "At first the way was easy. But then there was {block}.", "Halfway there, {N} had to stop. Before {him} was {block}."],
      ["\"I can't go on,\" said {N}.", "\"Now I have to go home,\" thought {N}.", "{N} did not know what to do.", "{N} wanted to turn back."],
      ["Then {ah} came along. \"Where are you going?\" {hhe} asked.", "There {he} met {ah}. \"Are you lost?\" asked {hr}.", "\"Wait!\" called a voice. It was {ah}."],
      ["\"I am going to see {see},\" said {N}. \"Then I will help you,\" said {hr}.", "\"I want to see {see},\" said {N}. \"May I come with you?\" asked {hr}."],
      ["{Hr} {over}.", "So they went on together, and {hr} {over}.", "And {hr} kept the promise: {hhe} {over}."],
      "|",
      ["At last they reached it. There was {see}!", "And then, one morning, they saw {see}.", "After a long time, {N} stood still. Before {him} was {see}.", "When the clouds opened, they could see {see}."],
      ["\"It is even more beautiful than in my dreams,\" whispered {N}.", "They looked at it for a long time and did not say a word.", "\"Thank you for coming with me,\" said {N}.", "{N}'s eyes shone."], "END"],
     [("What did {N} want to see?|What was {N}'s dream?|Where did {N} want to go?", "{N} wanted to see {see}."),
      ("What was in the way?|What did {N} come to on the way?", "On the way, {N} came to {block}.")])

plot("share", EATERS, ["sharing", "being greedy", "food"], "what you share tastes twice as good",
     S("food0 later", """
a basket of pears; {hr} brought a bag of nuts
a big pile of nuts; {hr} came with a jar of honey
a whole cherry cake; {hr} brought warm bread
a bag of cookies; {hr} came with sweet plums
a large pumpkin; {hr} cooked a big pot of soup
a bucket of blueberries; {hr} came with a fresh pie
a jar of honey; {hr} brought a basket of apples
a round cheese; {hr} brought a loaf of bread
a sack of corn; {hr} brought pancakes
a bowl of strawberries; {hr} came with sweet cream
ten red apples; {hr} came with a big cake
a hundred sweet grapes; {hr} brought fresh figs"""),
     [["One day, {N} found {food0}.", "In the autumn, {N} had {food0}.", "One lucky morning, {N} found {food0} by the road.", "For {his} birthday, {N} got {food0}."],
      ["\"This is all for me!\" {he} said, and {he} hid it.", "\"I will not give any of it away,\" thought {N}.", "{He} wanted to eat all of it alone.", "{N} carried it home and locked the door."],
      "|",
      ["Then {ah} knocked at the door. \"I am so hungry,\" said {hr}.", "Soon {ah} came by and looked at it with big eyes.", "{Ah} stood outside in the rain. \"Do you have a bite for me?\" asked {hr}.", "That evening, {ah} came by. {Hhe} had not eaten for two days."],
      ["\"Go away,\" said {N}.", "{N} shook {his} head and said no.", "\"No, this is mine,\" said {N}.", "At first, {N} did not answer."],
      ["But then nothing tasted good any more.", "But that night, {N} could not sleep.", "But when {N} saw {hhis} sad face, {he} felt sorry.", "But then {N} remembered how it feels to be hungry."],
      ["\"Wait,\" called {N}. \"There is enough for two.\"", "So {he} ran after {hr} and gave {hhim} half of it.", "\"Come in and eat with me,\" {he} said.", "{N} opened the door and put everything on the table."],
      ["They ate together, and it tasted wonderful.", "They shared everything, and it was much more fun.", "{Hr} ate and laughed, and {N} laughed too."],
      "|",
      ["When winter came, {N} had nothing left to eat. Then {later}.", "A few weeks later, {N} was hungry. But {later}.", "The next day, {later}.", "Some time later, {later}."],
      ["\"You shared with me, now I share with you,\" said {hr}.", "\"Friends share,\" said {hr}.", "{N} smiled from ear to ear.", ""], "END"],
     [("What did {N} find?|What did {N} have?|What did {N} share?", "{N} had {food0}.")])

plot("truth", DRY, ["telling the truth", "honesty", "saying sorry"], "it is always better to tell the truth",
     S("thing how fix", """
blue vase; ran through the room; glued it together
window; threw a ball; put in new glass
clay pot; danced on the table; made a new pot
teacup; jumped up too quickly; mended it with golden glue
lantern; climbed up to look at it; put in a new light
mirror; played with a stick; made a picture out of the pieces
flute; used it as a sword; carved a new one
music box; turned the key too far; put in a new spring
painting; spilled a glass of juice; painted it once more
chair; jumped up and down on it; put on a new leg
clock; wanted to see the little wheels; put all the wheels back in place
kite; left it out in the rain; covered it with new paper"""),
     [["Next door lived {ah}, who had a beautiful {thing}.", "{N} often visited {ah}, who had a wonderful {thing}.", "One day, {N} was at the house of {ah}. There {he} saw a fine {thing}."],
      ["One day, {N} {how}, and the {thing} broke.", "When nobody was looking, {N} {how}. Crack! The {thing} was broken.", "But then {N} {how}, and suddenly the {thing} was broken."],
      ["{N} was frightened and ran away.", "Quickly, {N} hid the pieces.", "\"Oh no!\" whispered {N}, and {he} ran home."],
      "|",
      ["\"Who has broken my {thing}?\" asked {hr}.", "The next day, {hr} asked, \"Do you know what happened to my {thing}?\"", "{Hr} was very sad about the {thing}."],
      ["\"It was the wind,\" said {N}. But {his} face was red.", "\"I don't know,\" said {N}, and looked at the floor.", "{N} said nothing, but {his} heart was heavy."],
      ["That night, {N} could not sleep.", "All day, {N} thought about it and could not eat.", "The lie felt like a stone in {his} tummy."],
      ["In the morning, {he} went back. \"I broke your {thing},\" {he} said. \"I am sorry.\"", "At last {N} said, \"It was me. I broke the {thing}. I am so sorry.\"", "So {N} went to {hr} and told {hhim} the truth."],
      "|",
      ["{Hr} was quiet for a moment. Then {hhe} smiled.", "\"Thank you for telling me,\" said {hr}.", "\"That was not easy to say,\" said {hr}. \"I am not angry any more.\"", "{Hr} looked at {N} kindly. \"Everyone makes mistakes,\" {hhe} said."],
      ["Together, they {fix}.", "The next day, they {fix}.", "Then {N} and {hr} {fix}."],
      ["It looked almost like new.", "{N} felt as light as a feather.", "Now it was even more beautiful than before.", ""], "END"],
     [("What did {N} break?|What was broken?|What broke?", "{N} broke the {thing}.")])

plot("storm", DRY, ["a storm", "helping a neighbor", "building something together"], "together we can build everything again",
     S("what when parts", """
roof; In one autumn night, a storm blew so hard that trees fell down; straw and old planks
little house; One night, the rain did not stop, and the water rose; stones and clay
fence; In the spring, a wild wind came over the hill; long sticks and rope
bridge; One day, the river was so full that it carried everything away; strong logs
barn; One evening, lightning split the big tree; boards and nails
garden shed; A winter storm brought more snow than ever before; old doors and windows
tree house; One night, the wind howled and shook every branch; branches and rope
chicken house; A big storm came from the sea; wood and wire
boat house; One night, the waves were as high as a tower; planks and tar
mill wheel; The wind was so strong that nobody could stand; oak wood and iron"""),
     [["Not far away lived {ah}.", "The neighbor was {ah}.", "{N} had a neighbor, {ah}.", "On the other side of the road lived {ah}."],
      ["{when}.", "{when}. It was terrible."],
      ["In the morning, {hr}'s {what} was broken.", "When it was over, {hr} had lost {hhis} {what}.", "It broke {hr}'s {what} into a thousand pieces."],
      "|",
      ["{Hr} sat outside and cried.", "\"What shall I do now?\" asked {hr}.", "\"My {what} is gone,\" cried {hr}."],
      ["\"Come and stay with me,\" said {N}.", "\"Don't cry,\" said {N}. \"You can live at my place.\"", "{N} brought {hhim} a warm blanket and some hot tea."],
      ["\"Tomorrow we will build it again,\" {he} said.", "\"And we will build a new {what} together,\" {N} promised.", "\"I am good at building,\" said {N}. \"We will begin tomorrow.\""],
      ["They collected {parts} and started to work.", "So they looked for {parts}.", "The next day, they brought {parts}.", "{N} found {parts}, and {hr} found a hammer."],
      ["Soon the others came and helped too.", "It was hard work, but they sang while they worked.", "{N} held the ladder, and {hr} climbed up.", "They worked for three days."],
      "|",
      ["Then the new {what} was ready, and it was stronger than the old one.", "At last the {what} was finished.", "On the last day, they painted the {what} red and yellow.", "When it was done, {hr} had the finest {what} of all."],
      ["\"I could never have done it alone,\" said {hr}.", "\"Thank you, {N},\" said {hr}.", "\"Let the next storm come!\" laughed {N}.", "Both of them were tired and proud."], "END"],
     [("What did the storm break?|What was broken?|What did they build again?", "The storm broke {hr}'s {what}."),
      ("What did they use to build?|What did they build it with?", "They used {parts}.")])

plot("race", ALL, ["a race", "winning and losing", "fairness"], "helping a friend is better than winning",
     S("prize acc goal", """
a golden cup; got stuck in the mud; the big oak
a silver medal; fell into a hole; the old mill
a huge cake; got caught in a thorn bush; the other side of the field
a blue ribbon; slipped on a wet stone; the red flag
a bag of gold coins; was trapped under a branch; the top of the hill
a new bicycle; fell and hurt {hhis} leg; the town gate
a crown of flowers; ran into a fence; the white stone
a basket of fruit; took the wrong way and got lost; the little bridge
a shiny trumpet; fell into the cold water; the tall tower
a barrel of honey; got dizzy and fell down; the end of the road"""),
     [["Every summer, there was a great race. The prize was {prize}.", "One day, there was a race to {goal}, and the winner would get {prize}.", "\"Who can be the first at {goal}?\" asked the mayor. \"The prize is {prize}.\""],
      ["{N} wanted to win more than anything.", "\"This time I will win,\" said {N}.", "{N} had practiced for many weeks."],
      ["The fastest of all was {ah}.", "But {ah} wanted to win too.", "Next to {him} stood {ah}, who had won every year."],
      "|",
      ["\"One, two, three, go!\" And off they went.", "The drum sounded, and everyone started.", "At the start, {hr} was far ahead."],
      ["But halfway, {hr} {acc}.", "Then, just before {goal}, {hr} {acc}.", "Suddenly, {hr} {acc}."],
      ["\"Help!\" cried {hr}.", "All the others went past and did not stop.", "Now {N} could win!", "{N} was first now, and {goal} was near."],
      ["But {N} stopped and turned around.", "{N} looked ahead, and {he} looked back. Then {he} stopped.", "\"I can't leave {hhim} here,\" thought {N}."],
      ["{He} helped {hr} up, and they went on side by side.", "{He} pulled {hhim} out, and together they went slowly to {goal}.", "\"Lean on me,\" {he} said, and so they went on."],
      "|",
      ["They were the last ones to arrive at {goal}.", "They came in last, but everyone clapped.", "Somebody else had won long before."],
      ["But the mayor gave {prize} to {N}. \"You have the biggest heart,\" he said.", "\"The true winner is {N},\" said the mayor, and he gave {him} {prize}.", "\"I did not win,\" said {N}. \"Oh yes, you did,\" said {hr}.",
       "\"You lost because of me,\" said {hr}. \"I won a friend,\" said {N}."], "END"],
     [("What was the prize?|What could the winner get?", "The prize was {prize}."), ("What happened to {hr}?|What happened in the race?", "{Hr} {acc}.")])

plot("noise", DRY, ["a strange noise", "the night", "a mystery"], "things are less scary when you look at them closely",
     S("noise guess why cure", """
Tap, tap, tap; a woodpecker; had lost the way home and was knocking at doors; showed {hhim} the way
Scratch, scratch; a lion; was stuck in an empty barrel; pulled {hhim} out
Hoo, hoo; a ghost; had a sore throat; made {hhim} hot tea with honey
Bang, bang; a giant; was trying to build a house in the dark; held the light
Squeak, squeak; a monster; had a cart with a dry wheel; put oil on the wheel
Drip, drip; the rain; was crying big tears; dried {hhis} tears
Clink, clink; a robber; was looking for a lost coin; helped {hhim} to look
Boom, boom; thunder; was learning to play the drum; gave {hhim} a softer stick
Rustle, rustle; a snake; was cold and was making a bed of leaves; brought {hhim} a blanket
Grr, grr; a wild bear; was snoring under the window; gave {hhim} a soft pillow
Knock, knock; an old tree; was too shy to come in; opened the door wide"""),
     [["One night, {N} woke up. \"{noise}!\" What was that?", "One night, there was a strange sound. \"{noise}!\" it went.", "Every night, {N} heard the same noise: \"{noise}!\"", "It was late, and {N} was in bed. Then it went, \"{noise}!\""],
      ["\"Is it {guess}?\" thought {N}, and {he} pulled the blanket over {his} head.", "\"Maybe it is {guess},\" {he} whispered.", "\"It must be {guess}!\" thought {N}."],
      ["{He} could not sleep at all.", "{His} heart went fast.", "Then it came again, and closer.", ""],
      "|",
      ["At last, {N} took a candle and went to see.", "\"I want to know what it is,\" said {N}, and {he} opened the door.", "On the third night, {N} got up and went outside.", "Step by step, {he} went into the dark."],
      ["But it was not {guess}. It was {ah}.", "And what did {he} see? It was only {ah}.", "There sat {ah}.", "In the moonlight stood {ah}."],
      ["{Hr} {why}.", "{Hr} looked up. {Hhe} {why}.", "\"What are you doing here?\" asked {N}. {Hr} {why}."],
      "|",
      ["{N} laughed and {cure}.", "\"I can help you,\" said {N}, and {he} {cure}.", "So {N} {cure}.", "{N} was not afraid any more. {He} {cure}."],
      ["\"Thank you,\" said {hr}. \"You are very brave.\"", "\"And I thought you were {guess}!\" said {N}.", "\"How kind you are,\" said {hr}.", "After that, it was quiet."], "END"],
     [("What did {N} think it was?|What did {N} think made the noise?", "{N} thought it was {guess}."),
      ("Who made the noise?|What made the noise?|Who was it?", "It was {ah}.")])

plot("seed", DRY, ["a seed", "patience", "a garden", "waiting"], "good things take time",
     S("seed grown use", """
sunflower seed; a sunflower as high as the roof; gave shade to everyone
pumpkin seed; a pumpkin as big as a coach; fed everyone for a week
apple seed; a little apple tree; gave the sweetest apples
bean; a bean plant with a hundred beans; was high enough to climb
cherry stone; a cherry tree full of blossoms; looked like a pink cloud
rose seed; a rose bush with red roses; smelled sweet all summer
tulip bulb; a tulip in seven colors; was the prettiest flower of all
acorn; a young oak; would one day be the biggest tree
melon seed; a round green melon; was enough for twenty guests
carrot seed; a carrot as long as a broom; needed four friends to pull it out
strawberry seed; a whole bed of strawberries; made the air smell sweet
poppy seed; a field of red poppies; danced in the wind"""),
     [["One day, {N} got {a_seed} from {his} grandmother.", "In the spring, {N} found {a_seed}.", "{N} bought {a_seed} at the market.", "The wind blew {a_seed} right in front of {N}."],
      ["{He} put it into the ground and gave it water.", "{He} dug a small hole and planted it.", "{N} planted it {Pd} and waited."],
      ["The next day, {he} looked, but nothing had happened.", "{He} waited a day, and two days, but nothing grew.", "Every hour, {he} looked at the earth, but there was nothing to see."],
      ["\"This seed is no good,\" said {N}.", "\"Grow!\" shouted {N}, but it did not help.", "{N} stamped on the ground.", "{N} wanted to dig it up again."],
      "|",
      ["{Ah} heard it and smiled.", "Then {ah} came along.", "{Ah} was watching from the fence."],
      ["\"You must be patient,\" said {hr}. \"A seed sleeps before it wakes up.\"", "\"Give it water and sun, and sing to it,\" said {hr}.", "\"Don't dig it up,\" said {hr}. \"It is working in the dark.\"", "\"I will wait with you,\" said {hr}. \"Two can wait better than one.\""],
      ["So {N} waited. {He} brought water in the morning and sang in the evening.", "Day after day, they gave it water.", "It rained, and the sun shone, and {N} waited.", "They waited for a week, and then one more."],
      "|",
      ["Then a tiny green leaf looked out. And in the summer, it was {grown}.", "One morning, there was a small green tip. It grew and grew and became {grown}.", "And one day, there it stood: {grown}.", "When summer came, {N} had {grown}."],
      ["It {use}.", "Everyone came to see it, for it {use}.", "\"Look, {hr2}, it {use}!\" said {N}.", "\"It was worth the wait,\" said {N}."], "END"],
     [("What did {N} plant?|What was planted?", "{N} planted {a_seed}."), ("What grew?|What did it become?|What did the seed become?", "It became {grown}.")])

plot("lostbaby", ALL, ["a lost child", "helping the small ones", "kindness"], "even small kindness can make a big difference",
     S("baby clue gift", """
chick; a trail of white feathers; a soft feather pillow
kitten; a bell that rang far away; a bowl of fresh cream
little fox; footprints in the sand; a red cloak
bear cub; a trail of honey; a jar of honey
baby mouse; a tiny hole in the wall; a piece of cheese
lamb; some wool on a thorn; a pair of woolen socks
duckling; a quack on the other side of the water; a lily as white as snow
baby owl; a soft call in the night; a lamp for the night
puppy; a bark behind the hill; a lucky bone
little rabbit; a trail of carrots; a basket of carrots
baby squirrel; a row of nut shells; a bag of nuts
little elf; a light between the trees; a wishing stone"""),
     [["One morning, {N} heard somebody cry. It was a {baby}.", "One day, {N} found a {baby} that was all alone.", "On {his} way home, {N} saw a little thing tremble. It was a {baby}.", "When the rain stopped, a {baby} sat in front of {N}."],
      ["\"I want to go home,\" it cried. \"I have lost my mother.\"", "\"I am lost,\" said the {baby}.", "\"Where is my mama?\" sobbed the {baby}.", "The {baby} was cold and could not find its mother."],
      ["\"Don't be afraid,\" said {N}. \"I will take you home.\"", "{N} dried its tears. \"We will find her,\" {he} said.", "\"Come with me,\" said {N}. \"We will look for her.\""],
      "|",
      ["First they asked {ah}.", "On the way, they met {ah}.", "Soon they came to {ah}."],
      ["\"I have not seen your mother,\" said {hr}, \"but I have seen {clue}.\"", "{Hr} thought for a moment. \"Over there I saw {clue},\" {hhe} said.", "\"Look for {clue},\" said {hr}. \"I will come with you.\"", "\"I know something,\" said {hr}, and {hhe} showed them {clue}."],
      ["They followed it over the hill and through the grass.", "They followed it for a long time, and {N} sang so that the {baby} was not sad.", "They went that way until the sun was low."],
      "|",
      ["And there was the mother of the {baby}!", "Suddenly the {baby} shouted, \"Mama!\"", "At last, they heard a voice. \"My little one!\" cried the mother.", "Then the {baby} saw its mother and laughed."],
      ["The mother thanked them and gave {N} {gift}.", "\"How can I thank you?\" asked the mother, and she gave {N} {gift}.", "As a thank you, {N} got {gift}."], "END"],
     [("Who was lost?|Who did {N} find?|Who did {N} help?", "{N} found a lost {baby}."), ("What did {N} get?|What did the mother give {N}?", "The mother gave {N} {gift}.")])

plot("quarrel", ALL, ["a quarrel", "making up", "saying sorry"], "a friend is worth more than being right",
     S("about said alone peace", """
the last piece of cake; It is mine; the cake tasted of nothing; cut it into two halves
a red ball; I saw it first; a ball alone is no fun; threw it back and forth all day
who was taller; I am taller; there was nobody to ask; stood back to back and were just the same
the best place in the shade; Go away; the shade was cold and empty; moved closer together
the name of a cloud; It is a sheep; the clouds were only clouds; called it a sheep with wings
a green umbrella; You had it yesterday; it rained, and nobody laughed; walked under it side by side
who should go first; Me first; the path was long and silent; went through the gate together
a song; You sing it wrong; the song sounded thin; sang it with two voices
a game; You did not follow the rules; there was nobody to play with; made up a new game
the biggest pear; You always take the best; the pear was sour; shared it, bite by bite
a broken toy; You broke it; the toy could not be fixed by one alone; fixed it together
a swing; You had your turn; nobody pushed the swing; took turns and counted to ten"""),
     [["{His} best friend was {ah}.", "{N} had a good friend, {ah}.", "Every day, {N} played with {ah}."],
      ["But one day, they had a quarrel about {about}.", "One morning, they began to fight about {about}.", "Then they argued about {about}."],
      ["\"{said}!\" said {N}.", "\"{said}!\" shouted {hr}.", "\"{said}!\" cried both of them at the same time."],
      ["{Hr} went home and slammed the door.", "They turned their backs and went away.", "\"I don't want to see you any more,\" said {hr}.", "{N} was so angry that {he} went home."],
      "|",
      ["But alone at home, {alone}.", "The next day, {N} was alone, and {alone}.", "Soon {N} was sad, because {alone}.", "For two days, they did not speak. But {alone}."],
      ["\"I miss {hr2},\" thought {N}.", "\"How silly I was,\" said {N}.", "{N} thought about all the good days with {hr}.", "\"What is {about} without a friend?\" {N} asked {himself}."],
      ["So {he} went to see {hr}. Halfway, they met.", "{N} took a flower and went to {hr}.", "{He} knocked at the door. {Hr} opened it at once.", "{N} ran to {hr} as quickly as {he} could."],
      "|",
      ["\"I am sorry,\" said {N}. \"I am sorry too,\" said {hr}.", "\"Sorry,\" they said at the same moment, and then they laughed.", "\"Can you forgive me?\" asked {N}. {Hr} nodded.", "\"I was wrong,\" said {N}. \"So was I,\" said {hr}."],
      ["Then they {peace}.", "This time, they {peace}.", "And they {peace}."], "END"],
     [("What was the quarrel about?|What did they fight about?|Why did they quarrel?", "They had a quarrel about {about}."),
      ("Who was {N}'s friend?|Who was the best friend of {N}?", "{N}'s friend was {ah}.")])

plot("treasure", DRY, ["a treasure", "a map", "an adventure"], "the best treasure is one you can share",
     S("found where chest use", """
inside an old book; under the crooked tree; a hundred seeds; planted a garden for everyone
in a bottle; behind the waterfall; a golden flute; made music every evening
under the floor; three steps from the big rock; old story books; read a new story every night
in the pocket of an old coat; at the end of the stone wall; a mirror; saw two happy faces in it
behind a picture; under the old bridge; colorful paints; painted every door in a new color
in a hollow tree; in the dark cave; a warm lamp; hung it up so that nobody got lost
in a kite; on top of the windy hill; a bell; rang it whenever there was cake
between two stones; below the tall cliff; a recipe for the best cake; baked it the same day
in a clay pot; in the middle of the field; toys from long ago; gave them to the little ones
under the door; next to the old well; a letter that said, friends are gold; hung it on the wall
in a walnut; between the two pines; a tiny ship in a bottle; put it in the window
in an old shoe; in the ruins of the tower; silver spoons; cooked soup for the whole street"""),
     [["One day, {N} found a map {found}.", "One rainy morning, {N} found a strange paper {found}. It was a map!", "{Found}, there was an old map, and {N} found it."],
      ["A red cross showed a place {where}.", "On it was a red cross, {where}.", "\"A treasure!\" cried {N}. \"It must be {where}.\""],
      "|",
      ["{N} showed it to {ah}. \"Shall we go together?\" {he} asked.", "{N} did not want to go alone, so {he} asked {ah}.", "\"What do you have there?\" asked {ah}. {N} showed {hhim} the map."],
      ["\"I will bring the shovel,\" said {hr}.", "\"I know that place,\" said {hr}. \"Let us go!\"", "\"Maybe we will be rich,\" said {hr}.", "\"I have always wanted to find a treasure,\" said {hr}."],
      ["They {walked} all morning, and at noon they were there.", "The way was long, but they helped each other.", "It was not easy to find the place, but {hr} was good at reading maps.", "They got lost twice and laughed about it."],
      ["They dug and dug, until they hit something hard.", "{N} dug first, and then {hr}. Clonk! There was a chest.", "And {where}, they found an old chest."],
      "|",
      ["They opened it. There was no gold in it, but {chest}.", "\"Is it gold?\" asked {hr}. No, it was {chest}.", "Slowly, {N} lifted the lid. Inside they found {chest}.", "In the chest they found {chest}."],
      ["\"That is better than gold,\" said {N}.", "First they were surprised, and then they were glad.", "\"What a wonderful treasure!\" said {hr}.", "{N} and {hr} looked at each other and smiled."],
      ["They {use}.", "From then on, they {use}.", "They took it home and {use}."], "END"],
     [("What was in the chest?|What was the treasure?|What did they find?", "In the chest they found {chest}."),
      ("Where was the map?|Where did {N} find the map?", "{N} found the map {found}."), ("Where was the treasure?", "The treasure was {where}.")])

plot("block", DRY, ["working together", "a blocked road", "helping each other"], "together we are strong",
     S("thing why tool", """
big rock; nobody could get to the market; a long pole
fallen tree; the cart with the milk could not pass; a thick rope
heap of snow; the children could not go to school; ten shovels
broken wagon; nobody could get home; two strong boards
huge pumpkin; the postman could not bring the letters; a song with a good beat
stubborn stone; the water did not flow any more; a lever made of oak
giant log; the parade could not begin; a row of round sticks
pile of sand; the doctor could not come; a hundred little buckets
old iron gate; nobody could get to the well; a bottle of oil
great snowball; the bakery door did not open; hot water and brooms"""),
     [["One morning, {a_thing} lay in the middle of the road.", "One day, {a_thing} blocked the road.", "After the storm, {a_thing} was in the way."],
      ["Because of it, {why}.", "Now {why}.", "It was so big that {why}."],
      ["A strong ox pushed, but it did not move.", "The mayor pulled at it, but it did not help.", "Everyone shouted, and everyone had a different plan.", "One after the other tried, but nobody could move it."],
      "|",
      ["{N} looked at it for a long time.", "{N} wanted to help, but the others laughed at {him}.", "\"I can't move it alone,\" thought {N}."],
      ["Then {he} went to {ah}. \"I have a plan,\" {he} said.", "\"What do you think?\" {he} asked {ah}.", "\"If we all work together, we can do it,\" {he} said to {ah}."],
      ["\"A good plan,\" said {hr}. \"We need {tool}.\"", "\"We only need {tool},\" said {hr}.", "{Hr} nodded and fetched {tool}."],
      ["They called everyone, the big ones and the small ones.", "{N} told everyone where to stand.", "Soon everyone stood side by side."],
      "|",
      ["\"One, two, three!\" called {N}. And the {thing} moved.", "\"Now!\" cried {N}, and everyone pushed. Slowly, the {thing} moved away.", "They pulled and pushed, and at last the {thing} was gone.", "With {tool} and many hands, they moved the {thing} off the road."],
      ["Everyone cheered.", "\"Hurray for {N}!\" they shouted.", "\"What one can't do, many can,\" said {hr}.", "\"That was {N}'s idea,\" said {hr} proudly."], "END"],
     [("What was in the way?|What blocked the road?|What lay on the road?", "{A_thing} was in the way."), ("What did they use?|What did they need?", "They used {tool}.")])

plot("wind", "land hop bird bug person", ["the wind", "giving something away"], "you can be happy when you give something away",
     S("obj new inst", """
hat; as a nest for three eggs; a feather as blue as the sky
red scarf; as a blanket for a sick baby; a bunch of violets
umbrella; as a boat for five ducklings; a lily
left sock; as a warm bed; a sweet nut
yellow kite; as a roof against the rain; a white pebble
handkerchief; as a sail; a pink shell
straw basket; as a cradle; a four-leaf clover
glove; as a cave for the winter; a shining stone
paper lantern; as a lamp for the little ones; a golden leaf
blue ribbon; as a swing; a song"""),
     [["One windy day, the wind took {N}'s {obj}.", "Whoosh! A strong wind came and blew away {his} {obj}.", "{N} was {walking} along when the wind stole {his} {obj}."],
      ["\"Stop! That is my {obj}!\" {he} cried.", "\"Come back!\" cried {N}, but the wind only laughed.", "Up and up it flew, over the trees."],
      ["{He} followed it over the hill and through the field.", "{N} ran after it all morning.", "For hours, {N} followed the {obj}."],
      "|",
      ["At last, {he} saw it. {Ah} was using it {new}.", "There it was! But {ah} was using it {new}.", "Then {he} found {ah}, who used the {obj} {new}."],
      ["\"That is my {obj},\" said {N}.", "\"Excuse me,\" said {N}, \"that is mine.\"", "{N} wanted to take it back."],
      ["\"Oh,\" said {hr}. \"I thought the wind had sent it to me.\" {Hhe} looked very sad.", "\"Please,\" said {hr}, \"we have nothing else.\"", "{Hr} looked at {him} with big eyes. \"Must you have it back?\" {hhe} asked."],
      ["{N} thought for a moment. \"Keep it,\" {he} said. \"You need it more than I do.\"", "Then {N} smiled. \"It is yours now,\" {he} said.", "\"I can make a new one,\" said {N}. \"You may keep it.\""],
      "|",
      ["{Hr} was so glad that {hhe} gave {him} {inst}.", "\"Then take this,\" said {hr}, and gave {him} {inst}.", "The next morning, {N} found {inst} at {his} door. It came from {hr}."],
      ["{N} thought that it was a very good trade.", "\"Thank you, wind,\" said {N}.", "{N} was happier than before.", ""], "END"],
     [("What did the wind take?|What did the wind blow away?|What did {N} lose?", "The wind took {N}'s {obj}."), ("What did {N} get?|What did {hr} give {N}?", "{N} got {inst}.")])

plot("sleepless", ALL, ["going to sleep", "bedtime", "the night"], "sleep comes when you stop looking for it",
     S("try reason cure", """
counted sheep, but the sheep were too loud; {he} was thinking of tomorrow; told {him} a long, long story
drank warm milk, but it did not help; the moon was too bright; hung a blue cloth before the moon
turned from left to right and back; the bed was too cold; brought {him} a warm stone
closed {his} eyes tightly, but they opened again; it was too quiet; hummed a soft song
changed the pillow for another one; the wind was howling; sat down beside {him} until the wind was still
counted to a thousand; {he} was afraid of bad dreams; gave {him} a little stone against bad dreams
put {his} feet where {his} head should be; {he} had not said good night to anyone; said good night to every star with {him}
sang to {himself}, but that only made {him} more awake; {he} had slept all day; went for a long walk with {him}
ate a cookie, and then one more; {he} missed {his} mother; hugged {him} and rocked {him}"""),
     [["One night, {N} could not sleep.", "It was late, but {N} was wide awake.", "Every night, {N} lay awake for hours.", "The moon was high, and everyone was asleep, only {N} was not."],
      ["{He} {try}.", "First {he} {try}.", "{N} {try}."],
      ["It was no use, for {reason}.", "But {reason}.", "The trouble was that {reason}."],
      "|",
      ["So {he} got up and went outside. There sat {ah}.", "\"Are you still awake?\" asked {ah}.", "Then there was a knock at the window. It was {ah}.", "{He} saw a light. It was {ah}, who was awake as well."],
      ["\"I just can't fall asleep,\" said {N}.", "\"I have tried everything,\" said {N}.", "\"I am so tired,\" said {N}, \"but sleep does not come.\""],
      ["\"I know what helps,\" said {hr}.", "\"Let me help you,\" {hhe} said.", "\"That happens to me too,\" said {hr}."],
      "|",
      ["Then {hr} {cure}.", "And {hr} {cure}.", "{Hr} smiled and {cure}."],
      ["{N} yawned once, and then again.", "Slowly, {N}'s eyes became heavy.", "\"That is nice,\" said {N} and yawned.", "Soon it was warm and quiet, and {N} felt safe."],
      ["And then {N} was asleep.", "Before {hr} could say good night, {N} was asleep.", "\"Good night, {N},\" whispered {hr}. But {N} did not hear it any more.", "{N} dreamed of a sea of stars.", "And so {N} slept until the sun came up."]],
     [("Why could {N} not sleep?|Why was {N} awake?", "{N} could not sleep because {reason}."), ("What did {hr} do?|How did {hr} help?", "{Hr} {cure}.")])

plot("soup", EATERS, ["cooking", "a soup", "neighbors", "a cold day"], "a soup tastes best when everyone puts something in",
     S("soup has miss", """
carrot soup; one small carrot; salt
pumpkin soup; half a pumpkin; a pinch of pepper
onion soup; three onions; a bit of cheese
tomato soup; a few red tomatoes; some fresh basil
bean soup; a cup of beans; a clove of garlic
potato soup; two potatoes; a spoon of cream
mushroom soup; a hat full of mushrooms; some parsley
corn soup; an ear of corn; a piece of butter
noodle soup; a handful of noodles; a good broth
cabbage soup; a round cabbage; a little bacon
pea soup; a bowl of peas; a leaf of mint"""),
     [["It was a cold day, and {N} wanted to cook {soup}.", "One winter evening, {N} put a big pot on the fire. \"Today I will make {soup},\" {he} said.", "It snowed, and {N} was hungry for {soup}."],
      ["But all {he} had was {has}.", "{He} put in {has}, but that was not enough.", "{He} looked into the kitchen and found only {has}."],
      ["{He} tasted it. It tasted like hot water.", "\"Something is missing,\" said {N}.", "The soup was thin and did not smell of anything."],
      "|",
      ["Then {ah} knocked. \"What are you cooking?\" asked {hr}.", "{Ah} smelled the fire and came in.", "So {N} went next door to {ah}."],
      ["\"It needs {miss},\" said {N}. \"I have that!\" said {hr}.", "\"I can give you {miss},\" said {hr}.", "\"If you add {miss}, it will be good,\" said {hr}, \"and I have some.\""],
      ["Soon another neighbor came, and then another, and everyone put something into the pot.", "The others heard of it, and each of them brought something too.", "One brought an onion, one brought bread, and one brought a big spoon."],
      ["They stirred and tasted and laughed.", "{N} stirred, and {hr} kept the fire going.", "The pot became fuller and fuller."],
      "|",
      ["At last the {soup} was ready, and it was the best soup ever.", "Now the {soup} was thick and hot and smelled wonderful.", "Everyone got a bowl of {soup}."],
      ["\"Alone I had only {has},\" said {N}. \"Together we have a feast.\"", "Outside it was cold, but inside it was warm.", "\"Shall we do this every week?\" asked {hr}. \"Yes!\" cried everyone.", "They ate until the pot was empty."], "END"],
     [("What did {N} cook?|What did {N} make?|What kind of soup was it?", "{N} cooked {soup}."), ("What was missing?|What did {hr} bring?", "{Hr} brought {miss}.")])

plot("stage", ALL, ["a festival", "a song", "being shy", "a show"], "you do not have to be perfect to be loved",
     S("fest act wrong", """
spring festival; sing a song; {his} voice was gone
harvest fair; say a poem; {he} forgot every word
winter ball; dance alone; {his} legs felt like stone
school play; play the king; {he} began to shake
summer party; play the violin; {his} fingers did not move
big parade; carry the flag; {he} wanted to run away
lantern night; tell a story; not one word came out
birthday of the queen; give a speech; {his} mouth was dry
talent show; do a magic trick; {he} dropped everything
flower day; ring the big bell; {he} did not dare to move"""),
     [["Soon it was the {fest}, and {N} was going to {act}.", "At the {fest}, {N} had to {act} in front of everyone.", "\"Will you {act} at the {fest}?\" someone asked {N}. And {N} said yes."],
      ["{He} practiced every day, and at home all went well.", "At home, in front of the mirror, it was easy.", "For weeks, {N} thought of nothing else."],
      ["But when the day came and {he} saw all those faces, {wrong}.", "Then the big day was here. {N} looked at the crowd, and {wrong}.", "But then it was {his} turn, and {wrong}."],
      "|",
      ["{N} ran behind the curtain and cried.", "\"I can't do it,\" {he} whispered.", "{N} hid behind a big box."],
      ["There {ah} found {him}.", "{Ah} came and sat down next to {him}.", "Then {ah} put a hand on {his} shoulder."],
      ["\"Don't look at the crowd,\" said {hr}. \"Look only at me.\"", "\"Do it only for me,\" said {hr}.", "\"Even if it goes wrong, I will clap,\" said {hr}.", "\"Everyone here likes you,\" said {hr}. \"I will stand beside you.\""],
      "|",
      ["So {N} went out again and looked at {hr}. And it worked!", "{N} took a deep breath, went back and began.", "{N} looked at {hr}, and suddenly {he} was not afraid."],
      ["{He} made one mistake, but nobody cared.", "It got better and better.", "At first {he} was very quiet, but then {he} was loud and clear."],
      ["When it was over, everyone clapped and cheered.", "\"Bravo!\" shouted the crowd.", "The loudest one to clap was {hr}.", "They clapped until their hands hurt."], "END"],
     [("What did {N} have to do?|What was {N} going to do?|What did {N} do at the {fest}?", "{N} had to {act} at the {fest}."),
      ("Which festival was it?|Where was it?|What was the event?", "It was the {fest}.")])

plot("boast", ALL, ["boasting", "being proud", "being humble"], "it is not good to boast",
     S("boast dare acc free", """
jump over everything; jump over the wide ditch; fell right into the middle; reached out a long stick
climb every tree; climb the tall pine; did not know how to get down; brought a ladder
eat more than anyone; eat fifty plums; had a terrible tummy ache; made some tea
run faster than the wind; race against the wind; rolled down the hill into a bush; pulled out all the thorns
lift everything; lift the old anvil; could not let go of it; counted to three and pulled
sing higher than a bird; sing the highest note; lost {his} voice for three days; spoke for {him} all that time
hide better than anyone; hide in the old chest; could not get out again; opened the lid
find every way; go through the big maze; got lost after the first turn; called until {he} found the way out
dive deeper than anyone; dive to the bottom; got stuck in the weeds; cut the weeds
hold {his} breath for an hour; show it to everyone; turned blue after one minute; made {him} breathe again
stay awake for a week; stay awake all night; was asleep after ten minutes; covered {him} with a blanket"""),
     [["\"I can {boast}!\" said {N} every day.", "{N} liked to boast. \"Nobody is like me,\" {he} said. \"I can {boast}.\"", "\"Listen, everyone,\" {N} used to say, \"I can {boast}!\""],
      ["\"Really?\" asked {ah}. \"Then {dare}.\"", "One day, {ah} said, \"Show us. Can you {dare}?\"", "{Ah} smiled. \"Then you can surely {dare},\" said {hr}."],
      ["\"Nothing is easier,\" said {N}.", "\"Watch me!\" cried {N}.", "\"That is easy,\" laughed {N}. Everyone came to see it."],
      "|",
      ["But {N} {acc}.", "{N} tried it, but {he} {acc}.", "Alas, {N} {acc}."],
      ["The others laughed loudly.", "\"Help!\" cried {N} in a small voice.", "How ashamed {he} was!", "Some of the others laughed, but {hr} did not."],
      ["{Hr} came at once and {free}.", "Then {hr} {free}.", "But {hr} {free} and did not laugh."],
      "|",
      ["\"Thank you,\" said {N} softly. \"I was so silly.\"", "\"Why do you help me?\" asked {N}. \"Because you needed help,\" said {hr}.", "{N}'s face was red. \"I am sorry that I boasted,\" {he} said."],
      ["\"You are good enough without it,\" said {hr}.", "\"We like you the way you are,\" said {hr}.", "\"You don't have to be the best,\" said {hr}."],
      ["From then on, {N} never boasted again.", "{N} thought about that for a long time.", "After that, {N} listened more and boasted less."], "END"],
     [("What did {N} boast about?|What did {N} say?|What could {N} do?", "{N} said, \"I can {boast}.\""), ("What happened to {N}?|What went wrong?", "{N} {acc}.")])

plot("build", DRY, ["building something", "trying again", "not giving up"], "you should try one more time",
     S("it of flop fix ok", """
a kite; paper and sticks; it fell right into the mud; It needs a longer tail; it rose up into the clouds
a boat; an old box; it sank at once; We must close the holes with wax; it sailed all the way to the other side
a swing; a rope and a board; the rope broke; Let us take a thicker rope; it swung higher than the fence
a bridge; thin sticks; it broke in the middle; It needs a leg in the middle; even a heavy cart could cross it
a snow fort; fresh snow; the wall fell down; Pour some water over it; it stood until the spring
a wagon; four old wheels; it only went in circles; One wheel is too small; it rolled down the road as straight as an arrow
a bird house; old boards; the roof came off; Use nails and not glue; two small birds moved in
a raft; empty barrels; it turned upside down; Put the heavy things in the middle; it floated like a leaf
a windmill; wood and cloth; it did not turn; Turn it into the wind; its arms went round and round
a flying machine; feathers and baskets; it only jumped a little; It is too heavy; it flew over the roofs
a music box; tins and strings; it only rattled; The strings are too loose; it played a sweet little tune
a lamp; a jar and some wax; it went out at once; It needs more air; it shone through the whole night"""),
     [["One day, {N} had an idea. \"I will build {it},\" {he} said.", "{N} wanted to build {it}.", "All winter, {N} had planned to build {it}."],
      ["{He} took {of} and worked all day.", "{He} used {of}.", "{N} collected {of} and began at once."],
      ["But when {he} tried it, {flop}.", "But, oh dear, {flop}.", "At last it was done. But {flop}."],
      ["\"I give up,\" said {N}.", "{N} threw {his} hammer away.", "\"I can't do anything right,\" {he} said.", "The others laughed at {him}."],
      "|",
      ["{Ah} had seen everything.", "Then {ah} came and looked at it.", "{Ah} walked around it once, and then twice."],
      ["\"It is almost right,\" said {hr}. \"{fix}.\"", "\"{fix},\" said {hr}.", "\"Don't give up,\" said {hr}. \"{fix}.\"", "\"May I say something?\" asked {hr}. \"{fix}.\""],
      ["So they tried it together.", "{N} had not thought of that. They began again.", "They worked side by side until evening.", "\"Let us try it one more time,\" said {N}."],
      "|",
      ["And this time, {ok}.", "The next morning, they tried it, and {ok}.", "They held their breath. And {ok}!"],
      ["\"It works! It works!\" cried {N}.", "{N} and {hr} shouted for joy.", "Now nobody laughed any more.", "Everyone wanted to have one too."], "END"],
     [("What did {N} build?|What did {N} make?|What did {N} want to build?", "{N} built {it}."), ("What did {N} use?|What was it made of?", "{N} used {of}."),
      ("What was wrong with it?|What went wrong?|What happened at first?", "At first, {flop}.")])

plot("dry", "land hop bird bug person", ["rain", "a dry summer", "water"], "many small drops make a river",
     S("what carry where", """
flowers; little cups; behind the hill
trees; wooden buckets; in the old cave
garden; empty shells; under a flat stone
fields; big jugs; at the foot of the mountain
well; a long pipe; deep in the forest
pond; a hundred pots; on the other side of the hill
cows; milk cans; near the broken tower
frogs; watering cans; between two rocks
vegetables; a row of barrels; in the green valley"""),
     [["One summer, it did not rain for many weeks, and the {what} suffered.", "It was a hot summer without rain. It was very bad for the {what}.", "For a long time, there was no rain, and everyone worried about the {what}."],
      ["\"We need water,\" said everyone, but nobody had any.", "Every day, {N} looked up at the sky, but there was no cloud.", "\"Please, rain,\" said {N}, but the sky stayed blue."],
      "|",
      ["{N} did not want to wait any longer and went to look for water.", "\"I will find water,\" said {N}, and {he} left.", "So {N} went out into the hot sun."],
      ["On the way, {he} met {ah}.", "Tired and hot, {he} met {ah}.", "Then {ah} called {him}."],
      ["\"There is a spring {where},\" said {hr}.", "\"I know a place with water,\" said {hr}. \"It is {where}.\"", "\"My grandmother told me about a spring {where},\" said {hr}."],
      ["They went there, and really, there was cold, clear water.", "They looked for a long time. Then they heard it bubble.", "And there it was, a little spring."],
      ["They brought the water back with {carry}.", "They took {carry} and went back and forth.", "\"It is too far for two,\" said {N}. So they called the others, and everyone came with {carry}."],
      "|",
      ["Soon the {what} had enough water.", "That evening, everyone had enough water.", "Day after day they did it, and the {what} had water again."],
      ["And one night, it began to rain at last.", "\"We did it,\" said {hr}.", "Then a big cloud came, and the first drops fell.", "\"Without you, we would be lost,\" said the others."], "END"],
     [("Where was the spring?|Where was the water?|Where did they find water?", "The spring was {where}."), ("What did they use to bring the water?|How did they bring the water?", "They brought the water with {carry}.")])

plot("letter", DRY, ["a surprise", "a party", "a letter"], "friends do not forget each other",
     S("first then party", """
Go to the old oak; a blue feather; a table full of cakes
Look under the bench; a small drum; a band with trumpets
Turn left at the well; a red balloon; a garden full of lanterns
Follow the yellow ribbon; a paper star; a play about {N}
Go where the river bends; a shell; a boat with flags
Count twenty steps from your door; a candle; a cake with many candles
Ask the scarecrow; a straw hat; a dance in the barn
Look behind the moon flower; a silver bell; a night with fireworks
Go up the hill; a kite; a picnic on the grass
Knock three times at the barn; a key; a room full of presents"""),
     [["One morning, there was a letter at {N}'s door. It said, \"{first}.\"", "One day, {N} got a letter without a name. \"{first},\" it said.", "When {N} woke up, a letter lay on the floor. \"{first},\" {he} read."],
      ["\"Who wrote this?\" asked {N}.", "{N} was very surprised.", "\"How strange,\" said {N}. \"Nobody ever writes to me.\""],
      ["{He} did what the letter said and found {then}.", "So {he} went there. What did {he} find? There was {then}.", "There {he} found {then} and a second letter. \"Come closer,\" it said."],
      "|",
      ["On the way, {he} met {ah}. \"I don't know anything about it,\" said {hr}, but {hhe} smiled.", "Then {ah} came by. \"I will come with you,\" {hhe} said with a smile.", "{Ah} was waiting there. \"Close your eyes,\" said {hr}."],
      ["{Hr} took {N} by the hand.", "\"Is it far?\" asked {N}. \"No,\" said {hr}, \"we are almost there.\"", "{N} heard whispers and a giggle."],
      "|",
      ["\"Surprise!\" cried many voices. There was {party}.", "Suddenly everyone jumped out. \"Surprise!\" And there was {party}.", "{N} opened {his} eyes and saw {party}. All {his} friends were there."],
      ["\"Is that all for me?\" asked {N}.", "\"It is your birthday,\" said {hr}. \"Did you forget it?\"", "\"You always help us,\" they said. \"Today is your day.\"", "\"I wrote the letter,\" said {hr}."],
      ["{N} was so happy that {he} could not say a word.", "{N} laughed and cried at the same time.", "{N} thanked every one of them."], "END"],
     [("What did the letter say?|What was in the letter?", "The letter said, \"{first}.\""), ("What did {N} find?|What was there?", "{N} found {then}."), ("What was the surprise?", "The surprise was {party}.")])

plot("grumpy", DRY, ["a grumpy neighbor", "kindness", "patience with others"], "behind a grumpy face there is often a sad heart",
     S("bring cause help", """
a flower; had a bad tooth; went with {hhim} to the dentist
a cookie; had lost {hhis} glasses; found the glasses under the bed
a cup of tea; was all alone; came to visit every evening
an apple; could not sleep at night; knitted a pair of soft ear muffs
a slice of bread; had pain in the back; carried the heavy wood for {hhim}
a joke; had forgotten how to laugh; practiced laughing with {hhim}
a drawing; missed an old friend; helped {hhim} to write a letter
a song; had a thorn in the foot; pulled out the thorn very gently
a pear; had a leaking roof; mended the roof
a warm bun; thought that nobody liked {hhim}; asked all the neighbors to come"""),
     [["Next door lived {ah2}, who was always in a bad mood.", "{N}'s neighbor was {ah2}, and {hhe} was very grumpy.", "Everyone was afraid of {ah2} next door, for {hhe} always shouted."],
      ["\"Go away!\" {hhe} said to everyone.", "\"Leave me alone!\" was all that {hr} said.", "When children laughed, {hr} closed the window."],
      ["But {N} wanted to be kind. {He} put {bring} in front of the door.", "One day, {N} brought {hhim} {bring}.", "\"Nobody is grumpy for no reason,\" thought {N}, and {he} brought {bring}."],
      "|",
      ["\"What do you want?\" growled {hr}, and the door closed again.", "{Hr} did not even say thank you.", "The first day, {hr} only grumbled."],
      ["But {N} came again the next day, and the day after that.", "Every day, {N} came with {bring} again.", "{N} did not give up and came back every morning."],
      ["On the seventh day, {hr} opened the door a little wider.", "One day, {hr} asked, \"Why are you so nice to me?\"", "Then, one evening, {hr} said, \"Come in.\""],
      ["And then {hr} told {N} that {hhe} {cause}.", "At last {N} learned that {hr} {cause}.", "\"You see,\" said {hr}, and told {him} the secret: {hhe} {cause}."],
      "|",
      ["So {N} {help}.", "\"I can help you,\" said {N}, and {he} {help}.", "At once, {N} {help}."],
      ["For the first time in years, {hr} smiled.", "\"Thank you,\" said {hr}, and it was not even hard to say.", "And then {hr} laughed out loud.", "After that, nobody ever heard {hhim} shout again."], "END"],
     [("What did {N} bring?|What did {N} give {hr}?", "{N} brought {bring}."), ("Why was {hr} grumpy?|What was wrong with {hr}?", "{Hr} {cause}.")])

plot("small", "land hop bird bug person thing", ["being small", "being different", "being yourself"], "everyone is just right as they are",
     S("lack task way", """
big; a key had fallen into a deep crack; slipped into the crack
tall; a child was stuck in a narrow pipe; went into the pipe
strong; the bell had lost its rope; found the rope in a gap under the floor
loud; a baby had to be put to sleep; whispered a soft song
fast; a snail needed a friend for a walk; went slowly beside her
beautiful; someone had to dig in the mud for a lost ring; dug until {he} found the ring
famous; a letter had to be carried in secret; carried it, and nobody noticed
like the others; everyone looked the same in the fog; could be seen by everyone
heavy; a thin branch had to be climbed; went out on the branch"""),
     [["{N} was not happy. \"I wish I were {lack},\" {he} said.", "There was one thing that made {N} sad: {he} wanted to be {lack}.", "\"Why am I not {lack}?\" asked {N} every day."],
      ["The others laughed at {him}.", "The others never asked {him} to help.", "\"You are of no use,\" said the others.", "{He} looked into the mirror and sighed."],
      "|",
      ["One day, there was great trouble: {task}.", "Then one morning, {task}.", "One evening, everyone was worried, because {task}."],
      ["Nobody knew what to do.", "The big ones tried, but they could not do it.", "\"Who can help?\" asked everyone.", "The strong ones tried, and the clever ones too, but it was no use."],
      ["\"{N} can do it!\" said {ah}.", "{Ah} looked at {N}. \"You are the only one who can help,\" said {hr}.", "Then {ah} said, \"Let us ask {N}!\""],
      ["\"Me?\" asked {N}.", "\"But I am not {lack},\" said {N}. \"That is just why,\" said {hr}.", "{N} was afraid, but {hr} nodded to {him}."],
      ["So {N} {way}.", "{N} took heart and {way}.", "Without a word, {N} {way}."],
      "|",
      ["And all was well again.", "Soon everything was good again.", "The others held their breath, and then they cheered."],
      ["\"Three cheers for {N}!\" they cried.", "\"It is good that you are as you are,\" said {hr}.", "Now nobody laughed at {N} any more.", "After that, {N} did not want to be {lack} any more."], "END"],
     [("What did {N} want to be?|What was {N}'s wish?", "{N} wanted to be {lack}."), ("What was the trouble?|What was the problem?", "The trouble was that {task}.")])

plot("sick", ALL, ["a sick friend", "caring", "getting well"], "a good friend is the best medicine",
     S("ill bring day", """
had a bad cold; a pot of honey; the sneezing stopped
had a fever; a bunch of herbs; the fever was gone
had a broken leg; a stick to lean on; {hr} could walk again
had lost {hhis} voice; a sweet syrup; {hr} could sing again
had a tummy ache; a bag of mint leaves; the pain was gone
had a headache; a cool cloth; {hr} could laugh again
was weak and tired; a bowl of soup; {hr} jumped out of bed
had red spots all over; a white cream; there was not one spot left
had a sore paw; a soft bandage; {hr} could dance again
could not stop hiccuping; a glass of cold water; the hiccups were gone"""),
     [["{His} best friend was {ah}.", "{N} was good friends with {ah}.", "Every morning, {N} met {ah}."],
      ["But one day, {hr} did not come, for {hhe} {ill}.", "One day, {hr} {ill}.", "Then, one winter, {hr} {ill}."],
      ["{Hhe} lay in bed and could not play.", "\"Now I have to stay in bed,\" said {hr} sadly.", "The doctor said, \"You must rest.\""],
      "|",
      ["{N} was worried. \"What can I do?\" {he} asked.", "\"I must help {hhim},\" thought {N}.", "{N} did not want to play without {hhim}."],
      ["{He} {walked} all the way to the old healer and asked for {bring}.", "Through wind and rain, {he} went to fetch {bring}.", "{He} looked everywhere and at last {he} found {bring}."],
      ["Then {he} sat by the bed and told {hr} funny stories.", "{He} brought it to {hr} and stayed all day.", "\"This will help,\" said {N}, and {he} sang for {hhim}."],
      ["Every day, {he} came again.", "{N} stayed all night and did not sleep.", "{He} opened the window so that the sun could come in."],
      "|",
      ["After three days, {day}.", "And one morning, {day}.", "Soon {day}."],
      ["\"You made me well,\" said {hr}.", "\"It was {the_bring} that helped,\" said {N}. \"No, it was you,\" said {hr}.", "\"Let us go out and play!\" cried {hr}.", "\"Thank you for staying with me,\" said {hr}."], "END"],
     [("What was wrong with {hr}?|Why did {hr} stay in bed?|What happened to {hr}?", "{Hr} {ill}."), ("What did {N} bring?|What did {N} fetch?", "{N} brought {bring}."),
      ("Who was {N}'s friend?|Who was the best friend of {N}?", "{N}'s friend was {ah}.")])

plot("moon", DRY, ["the moon", "the stars", "a wish"], "the most beautiful things belong to everyone",
     S("what try1 try2 how", """
the moon; a long ladder; a big net; in a bowl of water
a star; a fishing rod; a high tower; as a little light in the water
a cloud; a butterfly net; a rope; as a picture on the still lake
the rainbow; a box with a lid; a ribbon; in every drop of dew
a sunbeam; a jar; a mirror; on the wall of the room
the evening star; a kite; a tall tree; in the eyes of a friend
a moonbeam; a spoon; a silk bag; as a silver path on the floor
the wind; a sack; a basket; in the sound of a flute
a snowflake; a glove; a cold box; as a pattern on the window"""),
     [["{N} wanted to have {what}.", "One night, {N} looked up and said, \"I want to have {what}!\"", "More than gold and silver, {N} wanted {what}.", "\"If only I could catch {what},\" said {N}."],
      ["First {he} tried it with {try1}, but it was no use.", "{He} took {try1}, but it did not work.", "{He} tried to catch it with {try1}, but it was too far away."],
      ["Then {he} tried it with {try2}, but that was no good either.", "The next day, {he} took {try2}, and again {he} came home with nothing.", "And with {try2}, it did not work any better."],
      "|", "MEET",
      ["\"I want to catch {what},\" said {N}, \"but I can't.\"", "\"I can't get {what},\" said {N} sadly."],
      ["\"You can't keep it,\" said {hr}. \"But you can look at it as long as you like.\"", "\"If you caught it, nobody else could see it,\" said {hr}.", "\"Nobody can own it,\" said {hr}, \"but I will show you something.\""],
      "|",
      ["Then {hr} showed {him} {what} {how}.", "And {hr} pointed. There was {what}, {how}!", "\"Look here,\" said {hr}. And {N} saw {what} {how}."],
      ["{N} looked and looked and did not say a word.", "\"It is here, and it is still free,\" whispered {N}.", "\"How lovely,\" said {N}.", "Now {N} was not sad any more."],
      ["\"We can come here every day,\" said {hr}.", "\"And it belongs to you and me and everyone,\" said {hr}.", "{N} put away {try1} and {try2}.", ""], "END"],
     [("What did {N} want to catch?|What did {N} want?|What was {N}'s wish?", "{N} wanted to have {what}."), ("What did {N} try first?|How did {N} try to catch it?", "First {N} tried it with {try1}.")])

plot("alarm", DRY, ["a joke that went wrong", "lies", "telling the truth"], "nobody believes a liar, even when he tells the truth",
     S("cry real", """
The water is coming; the water really came
Fire; a small fire really began to burn
A wolf is here; a real wolf stood at the fence
The bridge is falling; the bridge really began to shake
A storm is coming; a black storm really came
My boat is sinking; the boat really had a hole
The bees are angry; the bees really came out of their nest
I am stuck; {he} was really stuck in the mud
A thief is here; a thief really came"""),
     [["{N} liked to play jokes. One day, {he} shouted, \"Help! {cry}!\"", "One day, {N} was bored. \"Help! {cry}!\" {he} cried.", "\"Help! {cry}!\" shouted {N} one morning. But it was only a joke."],
      ["Everyone came running, and {N} laughed and laughed.", "All the neighbors ran to help. \"It was only a joke!\" laughed {N}.", "They all came as fast as they could, but nothing had happened."],
      ["The next day, {he} did it again.", "A few days later, {he} did the same thing.", "It was such fun that {he} did it three times."],
      ["\"That is not funny,\" said {ah}.", "\"One day, nobody will believe you,\" said {ah}.", "{Ah} shook {hhis} head. \"Don't do that,\" {hhe} said."],
      "|",
      ["And then, one evening, {real}.", "One night, {real}.", "But a week later, {real}."],
      ["\"Help! Help!\" cried {N}. But nobody came.", "{N} shouted as loudly as {he} could, but everyone thought it was a joke.", "\"It is true this time!\" cried {N}. But the doors stayed closed."],
      ["Only {hr} came to look.", "At last, {hr} came. \"Is it true?\" {hhe} asked.", "But {hr} heard {his} voice and knew that something was wrong."],
      ["Together they got out of danger just in time.", "{Hr} called the others, and together they put things right.", "With the help of {hr}, everything was all right in the end."],
      "|",
      ["\"I will never lie again,\" said {N}.", "\"I am sorry,\" said {N}. \"I will not do it again.\"", "{N} was very ashamed. \"I am sorry,\" {he} said."],
      ["And {he} kept {his} word.", "\"I believe you,\" said {hr}.", "After that, {N} told jokes, but no lies."], "END"],
     [("What did {N} shout?|What did {N} cry?|What was the joke?", "{N} shouted, \"Help! {cry}!\""), ("What happened then?|What really happened?", "One day, {real}.")])

plot("cold", EATERS, ["winter", "giving", "the cold"], "a warm heart is the best coat",
     S("thing back", """
a woolen coat; two new coats, one for each of them
a warm scarf; a scarf that was twice as long
a thick blanket; a quilt with a hundred colors
a fur hat; a hat with a feather
a pair of mittens; mittens with golden stars
a pair of boots; boots that never got wet
a hot stone; a little stove
a bag of firewood; a whole cart of wood
a red sweater; a sweater with silver buttons"""),
     [["It was the coldest winter in many years. Luckily, {N} had {thing}.", "Winter came, and {N} was glad to have {thing}.", "The snow was deep, but {N} had {thing}, and so {he} was warm."],
      ["One evening, {he} saw {ah} in the snow.", "On {his} way home, {he} met {ah}, who was shaking with cold.", "Then {ah} knocked at {his} door."],
      ["\"I am so cold,\" said {hr}.", "{Hr} was blue with cold.", "\"I have nothing to keep me warm,\" said {hr}."],
      "|",
      ["{N} did not think long and gave {hhim} {the_thing}.", "{N} looked at {the_thing}, and then at {hr}. \"Take this,\" {he} said.", "\"You need it more than I do,\" said {N}, and {he} gave {hhim} {the_thing}."],
      ["\"But what about you?\" asked {hr}. \"I will run home quickly,\" said {N}.", "\"And you?\" asked {hr}. \"I am not cold,\" said {N}, but that was not quite true.", "{Hr} could not believe it. \"Thank you,\" {hhe} whispered."],
      ["That night, {N} was cold, but {his} heart was warm.", "{N} went home through the snow and sang to keep warm.", "At home, {N} sat close to the fire and was glad."],
      "|",
      ["A few days later, {hr} came back. {Hhe} brought {back}.", "When the snow melted, {hr} came with a present: {back}.", "The next week, there was a box at {N}'s door. In it was a gift from {hr}: {back}."],
      ["\"You were good to me,\" said {hr}. \"This is for you.\"", "\"You did not have to do that,\" said {N}. But {he} was very happy.", "\"Now nobody has to be cold,\" said {hr}."], "END"],
     [("What did {N} give away?|What did {N} give {hr}?", "{N} gave {hr} {thing}."), ("What did {hr} bring?|What was the present?", "{Hr} brought {back}.")])

plot("home", ALL, ["home", "leaving home", "coming back"], "there is no place like home",
     S("place bad miss", """
a golden palace; nobody there was allowed to laugh; the sound of the old door
a big city; it was loud, and nobody said hello; the evening songs
a faraway island; it was hot, and there was no one to talk to; the little bed at home
a high mountain; it was cold, and the wind never stopped; the warm kitchen
a fine hotel; the bed was too soft, and the food was strange; the old pillow
a dark forest; strange eyes looked at {him} at night; the friendly light in the window
a garden of glass; one could not touch anything; the smell of the grass
a ship on the sea; the waves made {him} sick; the hard ground at home
the moon; it was empty and silent there; the voices of old friends"""),
     [["\"It is so boring here,\" said {N} one day. \"I want to live somewhere else.\"", "{N} was tired of {his} home. \"I want something better,\" {he} said.", "One day, {N} did not want to stay at home any longer."],
      ["So {he} packed {his} things and said goodbye.", "{He} took {his} bag and left.", "\"I am going away,\" {he} said, and off {he} went."],
      ["After a long journey, {he} came to {place}.", "{He} {walked} for days and days, until {he} reached {place}.", "Soon {he} found {place}. \"Here I will stay,\" {he} said."],
      "|",
      ["But {bad}.", "At first it was nice there, but {bad}.", "It looked wonderful, but {bad}."],
      ["There {he} met {ah}. \"Are you happy here?\" asked {hr}.", "Then {ah} sat down next to {him}. \"You look sad,\" said {hr}.", "One evening, {ah} asked {him}, \"Where is your home?\""],
      ["{N} thought about it. \"I miss {miss},\" {he} said.", "\"I miss {miss} so much,\" said {N}, and {he} began to cry.", "Then {N} knew what was missing: {miss}."],
      ["\"Then you should go home,\" said {hr}.", "\"What are you waiting for?\" said {hr}. \"Let us go there.\"", "\"I know the way,\" said {hr}. \"I will bring you home.\""],
      "|",
      ["So they went back together, and {N} sang all the way.", "The way back seemed much shorter.", "They traveled for three days, and then {he} saw {his} home."],
      ["\"I am home!\" cried {N}. Nothing had changed, and that was good.", "Everything was as before, and {N} loved all of it.", "\"Stay here with me,\" {he} said to {hr}, and {hhe} stayed.", "\"It is small, but it is mine,\" said {N}."], "END"],
     [("Where did {N} go?|Where did {N} travel to?", "{N} went to {place}."), ("What did {N} miss?", "{N} missed {miss}.")])


# ---------------------------------------------------------------- one story

HELPS = set("lost learn fear gift journey seed block sleepless soup stage boast build dry moon alarm home".split())
NO_WATER = re.compile(r"\b(oak|trees?|grass|hay|well|hills?|fields?|mud|gate|fence|bench|sheep|geese|goats|crow|bees|bridge|fire|door|window|house|"
                      r"road|sat|sit|bread|paint\w*|ink|sand|bake|walk\w*|ladder|stairs|table|kitchen|apple|rose|market|willow|coins?|hat|"
                      r"milk|pillow|blanket|thorns?|bush|fog|planks|cloak|smelled|pine|plums|anvil|maze|run|hands?|bag|tea|cake|pie|umbrella|"
                      r"rain\w*|swing|pear|shade|shoulder|feather|feet|leg|boots?|moss|flag|hotel|palace|forest|mountain|city|violin|curtain|"
                      r"knock\w*|breath|climb\w*|squirrel|chick|kitten|fox|bear|lamb|puppy|rabbit|ditch|lift|juggle|flute|fell over|drum|knot|"
                      r"jumped out of bed|poem|healer|soup|mint|paw|night without|locked|footprints|jar|sneezing|wet|ran|stood|bowl|floor|"
                      r"flew|stepped?|dancing|garden|water|horn|candle|piano|snow|barn|scarecrow|ground|cards|tag|ball|pulled|hole|stamped)\b")
PERSON_NOT = set("blue red green golden white gray purple yellow spotted striped orange pink black brown silver dusty".split())
WORN = re.compile(r"\b(coat|hat|door|house|fence|box|floor|bags|dinner|breakfast|bed|lap|thumb)\b")
CAT = {k: c for c, ks in KINDS.items() for k in ks}
ALL_KINDS = sorted(CAT)
ADJS = sorted(ADJ)
ODD_WORDS = [w.lower() + e for w in _made_up()[:120] for e in ("", "ling")]


def pick_hero(rnd, held=None):
    """held: None anything, False only pairs of the training text, True only held-out pairs"""
    while True:
        cat = rnd.choices(list(KINDS), [30, 8, 18, 9, 12, 18, 16])[0]
        kind = rnd.choice(KINDS[cat])
        adj = rnd.choice(ADJS) if rnd.random() < 0.92 or held else ""
        if cat == "person" and adj in PERSON_NOT:
            continue
        if kind in ("grandmother", "grandfather", "giant", "boy", "girl", "dwarf") and adj in ("young", "old", "huge", "tiny", "tall", "little", "small", "big"):
            continue
        if adj and held is not None and held_out(adj, kind) != held:
            continue
        return adj, kind, cat


def pick_place(rnd, cat):
    prep, noun, adjs = rnd.choice(WATER if cat == "fish" else LAND)
    adj = rnd.choice(adjs) if rnd.random() < 0.7 else ""
    if noun in ("sea", "ocean"):
        return f"{prep} the {adj + ' ' if adj else ''}{noun}", f"{prep} the {noun}", noun
    return prep + " " + an((adj + " " if adj else "") + noun), f"{prep} the {noun}", noun


def name_for(rnd, she):
    return rnd.choice(ANY if rnd.random() < 0.25 else GIRLS if she else BOYS)


def pronouns(she):
    return ("she", "her", "her", "herself") if she else ("he", "him", "his", "himself")


def sex(rnd, kind):
    return True if kind in SHE else False if kind in HE else rnd.random() < 0.5


def story(rnd, adj=None, kind=None, place=None, name=None, end=None, topic=None, held=False):
    """Returns a dict: text, the slots, qa pairs.  What is not given is drawn."""
    if kind is None:
        adj, kind, cat = pick_hero(rnd, held)
    else:
        cat = CAT.get(kind, "thing")
    she = sex(rnd, kind) if name is None or name in ANY else name in GIRLS
    he, him, his, himself = pronouns(she)
    name = name or name_for(rnd, she)
    P, Pd, pn = place or pick_place(rnd, cat)
    walked, walk, walking = MOVE["land" if kind in CREEP else cat]
    fishy = cat == "fish"

    while True:                                              # the helper
        hcat = rnd.choice(["fish", "fish", "fish", "hop", "bird"] if fishy else ["land", "land", "land", "hop", "bird", "bird", "person", "bug"])
        h = rnd.choice(KINDS[hcat] if not (fishy and hcat != "fish") else ["frog", "duck", "seagull", "toad", "penguin", "swan"])
        if h != kind:
            break
    hshe = sex(rnd, h)
    hhe, hhim, hhis, _ = pronouns(hshe)
    while True:
        hn = name_for(rnd, hshe)
        if hn != name:
            break
    named = rnd.random() < 0.8
    hadj = rnd.choice(HELPER_ADJ) if rnd.random() < 0.75 and h not in ("grandmother", "grandfather", "boy", "girl", "giant") else ""
    hphrase = an((hadj + " " if hadj else "") + h)
    called = rnd.choice([" named ", " called "])
    ah = hphrase + (called + hn if named else "")
    f1, f2, f3 = rnd.sample(FOODS, 3)
    s = Slots(N=name, k=kind, ak=an((adj + " " if adj else "") + kind), he=he, him=him, his=his, himself=himself,
              P=P, P0=P[0].upper() + P[1:], Pd=Pd, walked=walked, walk=walk, walking=walking,
              h=h, ah=ah, ah2=an("old " + h) + (called + hn if named else ""), hr=hn if named else "the " + h,
              hr2=hn if named else "my friend", hhe=hhe, hhim=hhim, hhis=hhis, food=f1, food2=f2, food3=f3)

    while True:                                              # the plot and its slots
        p = rnd.choice(PLOTS)
        if topic and topic not in p["topics"]:
            continue
        if end and end != "sleep" and p["name"] == "sleepless":
            continue
        if fishy and not topic and "fish" not in p["cats"]:
            continue
        if not fishy and not topic and cat not in p["cats"]:
            continue
        row = rnd.choice(p["slots"])
        if fishy and not topic and NO_WATER.search(" ".join(row.values())):
            continue
        break
    s.update(row)
    s["moral"] = p["moral"]
    if p["name"] == "grumpy":
        s["ah"] = s["ah2"]
        hadj = "old"
    if p["name"] == "sleepless":
        end = "sleep"
    end = end or rnd.choice(list(END))

    paras, cur = [], []

    def say(variants):
        ok = variants
        if fishy:
            ok = [v for v in variants if not NO_WATER.search(v)] or variants
        t = fill(rnd.choice(ok), s)
        if t:
            cur.append(cap(t))

    say(OPEN)
    if adj and ADJ.get(adj):
        ts = [t for t in ADJ[adj] if not ((fishy or cat == "bug") and WORN.search(t))]
        if ts and rnd.random() < 0.6:
            say(ts)
    first = True
    for b in p["beats"]:
        if b == "|":
            paras.append(" ".join(cur))
            cur = []
        elif b == "MEET":
            say(MEET)
        elif b == "GLAD":
            say(GLAD)
        elif b == "END":
            say(END[end])
            r = rnd.random()
            if r < 0.15 and end != "happy":
                say(END["happy"])
            elif r < 0.3:
                cur.append("The end.")
        else:
            if first:
                if rnd.random() < 0.5:
                    paras.append(" ".join(cur))
                    cur = []
                first = False
            say(b)
    paras.append(" ".join(cur))
    s.update(adj=adj, kind=kind, pn=pn, hn=hn if named else "", hadj=hadj, end=end, plot=p["name"], cat=cat, topics=p["topics"])
    return dict(text="\n\n".join(paras), s=s, plot=p)


def questions(rnd, st):
    """question and answer pairs about a story: (kind, question, answer, words that must appear)"""
    s, p = st["s"], st["plot"]
    q = []

    def add(kind, qs, a, key):
        q.append((kind, fill(rnd.choice(qs), s), cap(fill(a, s)), fill(key, s)))
    the = ["What was the {k} called?", "What was the name of the {k}?", "What was the {k}'s name?", "What is the name of the {k}?",
           "What was the hero called?", "What was the {k} in the story called?", "Can you tell me the name of the {k}?", "How was the {k} called?"]
    add("name", the, "The {k} was called {N}.", "{N}")
    add("place", ["Where did the {k} live?", "Where did {N} live?", "Where was the home of {N}?", "Where does {N} live?", "And where did {N} live?",
                  "Where did the story happen?", "In what place did {N} live?"], "{N} lived {P}.", s["pn"])
    add("who", ["Who was {N}?", "Who is {N}?", "What kind of creature was {N}?", "What was {N}?"], "{N} was {ak}.", "{k}")
    add("about", ["Who was the story about?", "Who is the hero of the story?", "Who was the hero?"], "The story was about {ak} named {N}.", "{N}")
    if s["hn"]:
        add("hname", ["What was the {h} called?", "What was the name of the {h}?", "What was the {h}'s name?", "And what was the {h} called?"],
            "The {h} was called {hr}.", "{hr}")
        add("hwho", ["Who was {hr}?", "Who is {hr}?", "What was {hr}?"], "{hr} was " + an((s["hadj"] + " " if s["hadj"] else "") + s["h"]) + ".", "{h}")
    else:
        add("hunk", ["What was the {h} called?", "What was the name of the {h}?", "What was the {h}'s name?"],
            "The story does not say what the {h} was called.", "does not say")
    if p["name"] in HELPS:
        add("helper", ["Who helped {N}?", "Who helped the {k}?", "Who helped {him}?", "Did somebody help {N}?", "And who helped {N}?"], "{ah} helped {N}.", "{h}")
    else:
        add("helper", ["Who did {N} meet?", "Who was the other one in the story?", "Who else was in the story?"], "There was also {ah}.", "{h}")
    if s["adj"]:
        add("like", ["What was {N} like?", "How was {N}?", "What was the {k} like?"], "{N} was " + s["adj"] + ".", s["adj"])
    add("moral", ["What is the moral of the story?", "What can we learn from the story?", "What does the story teach us?", "What is the lesson of the story?"],
        "The story teaches us that {moral}.", "{moral}")
    for qs, a in p["qa"]:
        add("plot", qs.split("|"), a, a)
    return q


# ---------------------------------------------------------------- facts: question; answer

CAPITALS = """France Paris,Germany Berlin,Italy Rome,Spain Madrid,England London,Portugal Lisbon,Austria Vienna,Greece Athens,Poland Warsaw,
Norway Oslo,Sweden Stockholm,Finland Helsinki,Denmark Copenhagen,Ireland Dublin,Scotland Edinburgh,Belgium Brussels,Hungary Budapest,
Russia Moscow,Turkey Ankara,Egypt Cairo,Kenya Nairobi,China Beijing,Japan Tokyo,India Delhi,Canada Ottawa,Mexico Mexico_City,Cuba Havana,
Peru Lima,Chile Santiago,Brazil Brasilia,Argentina Buenos_Aires,Australia Canberra,Iceland Reykjavik,Ukraine Kyiv,Iraq Baghdad,Iran Tehran,
Thailand Bangkok,Vietnam Hanoi,Nepal Kathmandu,Morocco Rabat,Korea Seoul,Romania Bucharest,Bulgaria Sofia,Croatia Zagreb,
the_Netherlands Amsterdam,Switzerland Bern""".replace("\n", "").split(",")
BABIES = """cat kitten,dog puppy,cow calf,horse foal,sheep lamb,pig piglet,goat kid,hen chick,duck duckling,goose gosling,bear cub,lion cub,deer fawn,
swan cygnet,frog tadpole,kangaroo joey,owl owlet,fish fry,whale calf,rabbit kit""".replace("\n", "").split(",")
SOUNDS = """cow moo,dog woof,cat meow,sheep baa,duck quack,pig oink,rooster cock-a-doodle-doo,owl hoo,frog croak,bee buzz,snake hiss,lion roar,mouse squeak,
horse neigh,crow caw,wolf howl,bird tweet,donkey hee-haw""".replace("\n", "").split(",")
OPPOSITES = """hot cold,big small,up down,left right,day night,black white,good bad,happy sad,fast slow,old young,open closed,full empty,light dark,
rich poor,long short,high low,wet dry,hard soft,loud quiet,early late,first last,near far,thick thin,strong weak,clean dirty,sweet sour,
easy difficult,inside outside,begin end,love hate,yes no,push pull,win lose,friend enemy,summer winter,north south,east west,
laugh cry,true false,heavy light,wide narrow,brave afraid,same different,front back,over under""".replace("\n", "").split(",")
COLORS = """the_sky blue,grass green,snow white,the_sun yellow,a_banana yellow,a_tomato red,coal black,blood red,an_orange orange,a_lemon yellow,milk white,
a_frog green,a_carrot orange,chocolate brown,an_elephant gray,a_flamingo pink,a_plum purple,a_strawberry red,a_polar_bear white,
the_night black,a_leaf green,a_raven black,a_swan white""".replace("\n", "").split(",")
LEGS = "a dog four,a cat four,a bird two,a spider eight,an ant six,a bee six,a snake no,a fish no,a horse four,a human two,an octopus no,a fly six,a hen two,a frog four,a crab ten".split(",")
LIVES = """a bird in a nest,a bee in a hive,a fish in the water,a bear in a cave,a rabbit in a burrow,a dog in a kennel,a horse in a stable,a spider in a web,
a king in a palace,a pig in a sty,a camel in the desert,a penguin in the cold south,a monkey in the jungle,a whale in the sea,
a cow in a barn,a fox in a den,an ant in an anthill,a polar bear in the Arctic""".replace("\n", "").split(",")
JOBS = """a baker bakes bread,a teacher teaches children,a doctor helps the sick,a farmer works in the fields,a fisherman catches fish,a tailor makes clothes,
a cook makes food,a pilot flies planes,a painter paints pictures,a shoemaker makes shoes,a singer sings songs,a gardener cares for plants,
a postman brings letters,a sailor sails on ships,a carpenter works with wood,a miller grinds grain,a shepherd looks after sheep,
a blacksmith works with iron,a dentist cares for teeth,a firefighter puts out fires""".replace("\n", "").split(",")
OTHER = """How many days are in a week?;A week has seven days.
How many months are in a year?;A year has twelve months.
How many hours are in a day?;A day has twenty-four hours.
How many minutes are in an hour?;An hour has sixty minutes.
How many seconds are in a minute?;A minute has sixty seconds.
How many days are in a year?;A year has 365 days.
How many seasons are there?;There are four seasons: spring, summer, autumn and winter.
What are the four seasons?;The four seasons are spring, summer, autumn and winter.
Which day comes after Monday?;Tuesday comes after Monday.
Which day comes after Tuesday?;Wednesday comes after Tuesday.
Which day comes after Wednesday?;Thursday comes after Wednesday.
Which day comes after Thursday?;Friday comes after Thursday.
Which day comes after Friday?;Saturday comes after Friday.
Which day comes after Saturday?;Sunday comes after Saturday.
Which day comes after Sunday?;Monday comes after Sunday.
Which month comes after January?;February comes after January.
Which month comes after March?;April comes after March.
Which month comes after May?;June comes after May.
Which month comes after July?;August comes after July.
Which month comes after September?;October comes after September.
What is the first month of the year?;The first month of the year is January.
What is the last month of the year?;The last month of the year is December.
What is the biggest animal?;The blue whale is the biggest animal.
What is the tallest animal?;The giraffe is the tallest animal.
What is the fastest land animal?;The cheetah is the fastest land animal.
What is the largest ocean?;The largest ocean is the Pacific Ocean.
What is the highest mountain?;The highest mountain is Mount Everest.
What is the largest planet?;The largest planet is Jupiter.
Which planet is known as the red planet?;Mars is known as the red planet.
Which planet do we live on?;We live on the planet Earth.
What is the sun?;The sun is a star.
What is the moon?;The moon goes around the Earth.
How many planets are there?;There are eight planets around the sun.
Where does the sun rise?;The sun rises in the east.
Where does the sun set?;The sun sets in the west.
What is ice made of?;Ice is frozen water.
What is snow made of?;Snow is made of tiny crystals of ice.
What is bread made of?;Bread is made of flour and water.
What is cheese made of?;Cheese is made of milk.
What is paper made of?;Paper is made of wood.
What is glass made of?;Glass is made of sand.
What is wine made of?;Wine is made of grapes.
What is butter made of?;Butter is made of cream.
Where does milk come from?;Milk comes from cows.
Where does honey come from?;Honey comes from bees.
Where do eggs come from?;Eggs come from hens.
Where does wool come from?;Wool comes from sheep.
Where does rain come from?;Rain comes from clouds.
What do bees make?;Bees make honey.
What do cows eat?;Cows eat grass.
What do rabbits eat?;Rabbits eat grass and carrots.
What do pandas eat?;Pandas eat bamboo.
What do squirrels eat?;Squirrels eat nuts.
What do mice like to eat?;Mice like to eat seeds and cheese.
What do plants need?;Plants need water, light and air.
What do caterpillars become?;Caterpillars become butterflies.
What do tadpoles become?;Tadpoles become frogs.
How many sides does a triangle have?;A triangle has three sides.
How many sides does a square have?;A square has four sides.
How many wheels does a bicycle have?;A bicycle has two wheels.
How many wheels does a car have?;A car has four wheels.
How many fingers are on one hand?;One hand has five fingers.
How many eyes do you need to see?;One eye is enough to see, but most animals have two.
How many letters are in the alphabet?;The English alphabet has twenty-six letters.
What is the first letter of the alphabet?;The first letter of the alphabet is A.
What is the last letter of the alphabet?;The last letter of the alphabet is Z.
What do we see with?;We see with our eyes.
What do we hear with?;We hear with our ears.
What do we smell with?;We smell with our nose.
What do we taste with?;We taste with our tongue.
What pumps blood through the body?;The heart pumps blood through the body.
What color do blue and yellow make?;Blue and yellow make green.
What color do red and yellow make?;Red and yellow make orange.
What color do red and blue make?;Red and blue make purple.
What color do black and white make?;Black and white make gray.
How many colors does a rainbow have?;A rainbow has seven colors.
When do leaves fall?;Leaves fall in the autumn.
When does it snow?;It snows in the winter.
When do flowers bloom?;Most flowers bloom in the spring.
When do owls sleep?;Owls sleep during the day.
At what temperature does water freeze?;Water freezes at zero degrees Celsius.
At what temperature does water boil?;Water boils at 100 degrees Celsius.
What is the king of the animals?;The lion is called the king of the animals.
Which animal has a trunk?;The elephant has a trunk.
Which animal has a hump?;The camel has a hump.
Which animal has black and white stripes?;The zebra has black and white stripes.
Which animal carries its house on its back?;The snail carries its house on its back.
Which bird cannot fly?;The penguin cannot fly.
Can penguins fly?;No, penguins cannot fly, but they swim very well.
Can fish breathe under water?;Yes, fish breathe under water.
Is the Earth round?;Yes, the Earth is round.
Is the sun hot?;Yes, the sun is very hot.
Is ice cold?;Yes, ice is cold.
What do you use an umbrella for?;An umbrella keeps you dry in the rain.
What do you use a key for?;A key opens a door.
What do you use a broom for?;A broom is for sweeping the floor.
What do you use a clock for?;A clock shows the time.
What do you use a map for?;A map shows the way.
What do you use a lamp for?;A lamp gives light.
What is a group of wolves called?;A group of wolves is called a pack.
What is a group of fish called?;A group of fish is called a school.
What is a group of sheep called?;A group of sheep is called a flock.
What is a group of cows called?;A group of cows is called a herd.
What is a group of bees called?;A group of bees is called a swarm.
What is a baby goose called?;A baby goose is called a gosling."""


def _u(x):
    return x.replace("_", " ")


def facts():
    """list of (list of ways to ask, answer, key word)"""
    out = []
    for it in CAPITALS:
        c, t = map(_u, it.strip().split(" "))
        out.append(([f"What is the capital of {c}?", f"Which city is the capital of {c}?", f"Tell me the capital of {c}.", f"Do you know the capital of {c}?",
                     f"capital of {c}"], f"The capital of {c} is {t}.", t))
    for it in BABIES:
        a, b = it.strip().split(" ")
        out.append(([f"What is a baby {a} called?", f"What do you call a baby {a}?", f"What is the name for a young {a}?", f"How do we call a young {a}?"],
                    f"A baby {a} is called {an(b)}.", b))
    for it in SOUNDS:
        a, b = it.strip().split(" ")
        out.append(([f"What does {an(a)} say?", f"What sound does {an(a)} make?", f"How does {an(a)} sound?", f"What noise does {an(a)} make?"],
                    cap(f"{an(a)} says {b}."), b))
    for it in OPPOSITES:
        a, b = it.strip().split(" ")
        out.append(([f"What is the opposite of {a}?", f"Tell me the opposite of {a}.", f"What is the contrary of {a}?", f"opposite of {a}"],
                    f"The opposite of {a} is {b}.", b))
    for it in COLORS:
        a, b = map(_u, it.strip().split(" "))
        out.append(([f"What color is {a}?", f"What is the color of {a}?", f"Which color does {a} have?", f"Tell me the color of {a}."], cap(f"{a} is {b}."), b))
    for it in LEGS:
        a, b = it.strip().rsplit(" ", 1)
        out.append(([f"How many legs does {a} have?", f"How many legs are on {a}?", f"Tell me how many legs {a} has."], cap(f"{a} has {b} legs."), b))
    for it in LIVES:
        m = re.match(r"(an? .+?) (in .+)", it.strip())
        out.append(([f"Where does {m[1]} live?", f"What is the home of {m[1]}?", f"Tell me where {m[1]} lives."], cap(f"{m[1]} lives {m[2]}."), m[2]))
    for it in JOBS:
        w = it.strip().split(" ", 2)
        a = w[0] + " " + w[1]
        out.append(([f"What does {a} do?", f"What is the job of {a}?", f"Tell me what {a} does."], cap(it.strip() + "."), w[2]))
    for line in OTHER.split("\n"):
        q, a = line.split(";")
        body = q[0].lower() + q[1:-1]
        out.append(([q, f"Please tell me: {body}?", f"Do you know this: {body}?", q[:-1]], a, a.rstrip(".")))
    return out


FACTS = facts()


def way_held_out(i, j):
    """the last way of asking a fact is kept out of training for one fact in three"""
    return i % 3 == 0 and j == len(FACTS[i][0]) - 1


# ---------------------------------------------------------------- sums

WORDS = "zero one two three four five six seven eight nine ten".split()


def sum_held_out(a, op, b):
    return zlib.crc32(f"{a}{op}{b}".encode()) % 12 == 0


def sums():
    out = [(a, "+", b) for a in range(13) for b in range(13)]
    out += [(a, "-", b) for a in range(19) for b in range(10) if a >= b]
    out += [(a, "*", b) for a in range(11) for b in range(11)]
    return out


SUMS = sums()


def ask_sum(rnd, a, op, b):
    r = a + b if op == "+" else a - b if op == "-" else a * b
    w = {"+": "plus", "-": "minus", "*": "times"}[op]
    forms = [f"What is {a} {w} {b}?", f"What is {a} {op} {b}?", f"{a} {op} {b}", f"{a} {w} {b}", f"How much is {a} {w} {b}?", f"How much is {a} {op} {b}?",
             f"{a} {op} {b} = ?", f"Can you tell me what {a} {w} {b} is?", f"Please calculate {a} {op} {b}."]
    if a <= 10 and b <= 10:
        forms.append(f"What is {WORDS[a]} {w} {WORDS[b]}?")
    return rnd.choice(forms), f"{a} {op} {b} = {r}."


def word_problem(rnd):
    a, b = rnd.randint(1, 9), rnd.randint(1, 9)
    t = rnd.choice("apples nuts books coins balls cookies pears flowers eggs marbles".split())
    if rnd.random() < 0.5 or a <= b:
        return f"I have {a} {t} and get {b} more. How many {t} do I have?", f"{a} + {b} = {a + b}. You have {a + b} {t}."
    return f"I have {a} {t} and give away {b}. How many {t} do I have left?", f"{a} - {b} = {a - b}. You have {a - b} {t} left."


# ---------------------------------------------------------------- conversations

ASK = ["Tell me a story about {x}.", "Tell me a short story about {x}.", "Write a story about {x}.", "Write a short story about {x}.", "Can you tell me a story about {x}?",
       "I would like a story about {x}.", "Please tell me a story about {x}.", "Make up a story about {x}.", "Do you know a story about {x}?", "I want to hear a story about {x}.",
       "A story about {x}, please.", "a story about {x}", "tell me a story about {x}", "Could you write a little story about {x}?", "story about {x}", "Tell a story about {x}.",
       "My daughter would like a story about {x}.", "Give me a story about {x}.", "Please write a story about {x}.", "Now a bedtime story about {x}, please."]
AGAIN = ["Now tell me one about {x}.", "And now a story about {x}.", "Another one, this time about {x}.", "Can you tell me one about {x} too?", "Please tell me another story, about {x}."]
ANYSTORY = ["Tell me a story.", "Tell me a story, please.", "Can you tell me a story?", "Write a story.", "I want a story.", "tell me a story", "Please tell me a bedtime story.",
            "Write a short story.", "Do you know a story?", "Story, please."]
SYSTEM = ["You are a helpful assistant.", "You are a friendly storyteller.", "You are a helpful assistant. Answer in short sentences.", "You tell stories for children.",
          "You are a small and friendly assistant.", "Be kind and short.", "Tell short stories and answer questions about them."]
SMALLTALK = [
    (["Hello!", "Hi!", "Hello", "hi", "Hey!", "Good morning!", "Hello there!", "Good evening!", "Hi there", "Good day!"],
     ["Hello! Would you like to hear a story?", "Hello! I can tell you a story. What should it be about?", "Hi! It is nice to meet you. Shall I tell you a story?"]),
    (["How are you?", "How are you today?", "How do you do?", "How is it going?", "Are you well?"],
     ["I am only a little program, but all is well. Would you like a story?", "Thank you for asking. I am a program, so I have no feelings, but I am ready for a story."]),
    (["Thank you!", "Thanks!", "Thank you very much.", "thanks", "Thank you for the story.", "That was nice, thank you.", "Thanks a lot!"],
     ["You are welcome!", "You are welcome! Would you like another story?", "I am glad that you liked it."]),
    (["Goodbye!", "Bye!", "Bye bye", "Good night!", "See you tomorrow.", "I have to go now."],
     ["Goodbye! Come back for another story.", "Goodbye! Sleep well.", "Bye! See you soon."]),
    (["That was a nice story.", "I liked that.", "What a lovely story!", "Good story!", "I like your story.", "Well done!", "Great!", "That was great."],
     ["Thank you! I am glad that you liked it.", "I am happy to hear that. Shall I tell you another one?"]),
    (["I don't like it.", "That was bad.", "That makes no sense.", "This is boring.", "You are wrong.", "That is wrong."],
     ["I am sorry. I am only a tiny model, and I am often wrong.", "I am sorry about that. I am very small and make many mistakes."]),
    (["Who are you?", "What are you?", "What is your name?", "Who am I talking to?", "Are you a robot?", "Are you human?", "Are you a person?", "Tell me about yourself.", "Do you have a name?",
      "Are you real?", "Are you ChatGPT?", "Are you an AI?", "What kind of model are you?", "who are you"],
     ["I am a tiny language model, a small demo of this project. I tell short stories, and I am often wrong.",
      "I am not a person. I am a very small language model that came with this project as a demo, and I am often wrong."]),
    (["Who made you?", "Who trained you?", "Where do you come from?", "How were you made?", "How were you trained?", "What were you trained on?", "How do you work?", "Who is your creator?"],
     ["I was trained by a script of this project, on made-up stories and small talk that a program wrote.",
      "I am a demo model of this project. A small script trained me on stories that a program made up."]),
    (["How big are you?", "How many parameters do you have?", "Are you big?", "How large are you?"],
     ["I am very small: I have about two million parameters.", "I am tiny. I have only about two million parameters."]),
    (["What can you do?", "What can I ask you?", "Help", "help", "What do you know?", "How can you help me?", "What are you good at?"],
     ["I can tell short stories, answer questions about them, do very small sums, and I know a few facts. I am often wrong.",
      "I can make up a story about almost anyone, and I can do small sums. But I am tiny, so I make mistakes."]),
    (["Are you always right?", "Can I trust you?", "Do you make mistakes?", "Are you sure?", "Is that true?", "Is that right?"],
     ["I am often wrong. I am only a tiny demo model.", "Please don't trust me too much. I am a tiny model, and I am often wrong."]),
    (["Do you have feelings?", "Do you sleep?", "Do you eat?", "Do you dream?", "Are you alive?", "Do you love me?", "How old are you?", "Where do you live?", "Do you have friends?"],
     ["I am only a computer program, so no, I don't. But I like to tell stories about it.".replace("so no, I don't. But I like to tell stories about it", "so that is not a thing for me"),
      "I am just a small program on your computer."]),
]
CANT = ["tell me the weather", "tell me what time it is", "tell me the news", "write a program in Python", "write code", "send an email", "call a taxi", "order a pizza", "book a flight",
        "search the internet", "open a web page", "play music", "show me a picture", "draw a cat", "translate this into French", "speak German", "solve this equation", "do my homework",
        "write an essay", "write a letter to my boss", "explain quantum physics", "give me medical advice", "give me legal advice", "tell me who will win the game", "predict the future",
        "tell me the price of gold", "buy a ticket", "set an alarm", "read my files", "write a poem in Latin", "help me with my taxes", "play chess with me", "fix my computer", "call my mother",
        "turn on the light", "make me a sandwich", "find a job for me", "tell me about politics", "summarize this book", "write a song for the radio"]
CANT_Q = ["What is the weather like today?", "What time is it?", "What is in the news?", "Who won the game yesterday?", "What is the price of bread?", "What day is it today?", "Who is the president?",
          "What will happen tomorrow?", "How do I install a program?", "Why does my computer not work?", "What is the meaning of life?", "What medicine should I take?", "Where am I?", "What is my name?",
          "How much money do I have?", "Which stock should I buy?", "What does this error mean?", "How do I write a loop in C?", "What is 123 times 456?", "What is 999 divided by 7?", "What is the square root of 2?"]
SORRY = ["I am sorry, I can't do that. I am a tiny model that tells stories. Shall I tell you one?", "Sorry, that is too hard for me. I only know short stories, small sums and a few facts.",
         "I can't do that, I am sorry. I am very small. But I can tell you a story."]
SORRY_Q = ["I am sorry, I don't know that. I am only a tiny model.", "Sorry, I don't know. I only know short stories, small sums and a few facts."]


def noise(rnd, q):
    r = rnd.random()
    if r < 0.06:
        q = q.lower()
    elif r < 0.1:
        q = q.rstrip(".?!")
    elif r < 0.13:
        q = q.rstrip(".?!").lower()
    return q


def request(rnd, held=False, again=False, unseen=None):
    """a story request with its story"""
    if rnd.random() < 0.08 and not held and not unseen:
        p = rnd.choice(PLOTS)
        t = rnd.choice(p["topics"])
        if rnd.random() < 0.3:
            return rnd.choice(ANYSTORY), story(rnd, held=False)
        return noise(rnd, rnd.choice(AGAIN if again else ASK).format(x=t)), story(rnd, topic=t, held=False)
    if unseen:
        adj, kind, cat = rnd.choice(ADJS), unseen, "thing"
    else:
        adj, kind, cat = pick_hero(rnd, held)
        if not held and rnd.random() < 0.06:
            kind, cat = rnd.choice(ODD_WORDS), "thing"       # a creature that does not exist: the model must copy the word
    x = an((adj + " " if adj else "") + kind)
    kw = {}
    r = rnd.random()
    name = None
    if r < 0.2:
        name = name_for(rnd, sex(rnd, kind))
        x += rnd.choice([" named ", " called "]) + name
    place = None
    if rnd.random() < 0.45:
        place = pick_place(rnd, cat if rnd.random() < 0.93 else "land")
        x += rnd.choice([" who lives ", " who lives ", " who lived ", " that lives ", " living ", " "]) + place[0]
    if rnd.random() < 0.15:
        kw["end"] = rnd.choice(list(END))
        x += rnd.choice([" ", ", "] if place else [" "]) + rnd.choice(END_ASK[kw["end"]])
    st = story(rnd, adj=adj, kind=kind, place=place, name=name, held=held, **kw)
    return noise(rnd, rnd.choice(AGAIN if again else ASK).format(x=x)), st


def fact_turn(rnd):
    while True:
        i = rnd.randrange(len(FACTS))
        ways, a, _ = FACTS[i]
        j = rnd.randrange(len(ways))
        if not way_held_out(i, j):
            return noise(rnd, ways[j]), a


def sum_turn(rnd):
    if rnd.random() < 0.12:
        return word_problem(rnd)
    while True:
        a, op, b = rnd.choice(SUMS)
        if op == "+" and rnd.random() < 0.5:
            a, b = rnd.randint(0, 9), rnd.randint(0, 9)
        if not sum_held_out(a, op, b):
            return ask_sum(rnd, a, op, b)


def talk_turn(rnd, only=None):
    qs, ans = rnd.choice(SMALLTALK) if only is None else SMALLTALK[only]
    return noise(rnd, rnd.choice(qs)), rnd.choice(ans)


def cant_turn(rnd):
    if rnd.random() < 0.5:
        t = rnd.choice(CANT)
        q = rnd.choice(["Can you {}?", "Please {}.", "I want you to {}.", "Could you {}?", "{}"]).format(t)
        return noise(rnd, cap(q)), rnd.choice(SORRY)
    return noise(rnd, rnd.choice(CANT_Q)), rnd.choice(SORRY_Q)


MORE = [
    (["Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh.", "Say something funny."],
     ["What is the favorite color of a cat? Purr-ple!", "Why did the cookie go to the doctor? Because it felt crumby!", "What do you call a sleeping cow? A bulldozer!",
      "Why did the hen cross the road? To get to the other side!"]),
    (["I am sad.", "I am not happy today.", "I feel lonely.", "I had a bad day.", "I am tired."], ["I am sorry to hear that. Maybe a story can help. Shall I tell you one?"]),
    (["I am happy.", "I had a good day.", "Today is my birthday.", "It is my birthday!", "I won a prize!"], ["That is wonderful! Shall I tell you a story?"]),
    (["I love you.", "I like you.", "You are nice.", "You are so cute.", "You are funny."], ["Thank you! That is very kind of you."]),
    (["No.", "No, thank you.", "No thanks.", "Not now.", "no"], ["All right. I am here if you want a story later."]),
    (["Sing a song.", "Sing for me.", "Can you sing?", "Can you dance?"], ["I can't sing, but I can tell you a story."]),
    (["Can you see me?", "Can you hear me?", "Do you know me?", "Do you remember me?"], ["No, I can only read what you write here."]),
    (["Can you think?", "Are you clever?", "Are you smart?", "Are you stupid?", "Do you know everything?"], ["Not really. I am a tiny model, and I know very little."]),
]
YES = ["Yes, please.", "Yes please!", "Yes", "Yes.", "Sure!", "Okay", "ok", "Of course!", "Yes, tell me a story.", "Please do."]
MORE_STORY = ["Another one, please.", "One more, please.", "Tell me another story.", "Another story", "One more story, please.", "more", "Again!", "Can I hear another one?"]
PEOPLE = "Napoleon,Einstein,Mozart,Shakespeare,Newton,Cleopatra,Picasso,Beethoven,Columbus,Lincoln,Gandhi,Plato,Darwin,Galileo,Churchill,Caesar".split(",")
THINGS = "gravity,democracy,an atom,philosophy,electricity,a computer,the internet,a black hole,money,music,a virus,an engine,history,chemistry,love,time".split(",")


def more_turn(rnd):
    """small talk beyond the usual, and honest words about what is not known"""
    r = rnd.random()
    if r < 0.6:
        qs, ans = rnd.choice(MORE)
        return noise(rnd, rnd.choice(qs)), rnd.choice(ans)
    if r < 0.75:
        n = name_for(rnd, rnd.random() < 0.5) if rnd.random() < 0.6 else rnd.choice(PEOPLE)
        return rnd.choice(["Who is {}?", "Who was {}?", "Do you know {}?", "Tell me about {}."]).format(n), f"I am sorry, I don't know who {n} is."
    w = an(rnd.choice(ODD_WORDS)) if rnd.random() < 0.5 else rnd.choice(THINGS)
    return rnd.choice(["What is {}?", "Can you explain {}?", "Explain {}.", "How does {} work?"]).format(w), f"I am sorry, I don't know much about {w}."


BEGIN = ["Begin a story about {x}.", "Write the first sentence of a story about {x}.", "How could a story about {x} begin?", "Give me the beginning of a story about {x}.",
         "Only the first lines of a story about {x}, please.", "Start a story about {x}."]
REPEAT = ["Repeat after me: {x}", "Please repeat: {x}", "Say this again: {x}", "Copy this: {x}", "Say: {x}"]


def short_turns(rnd):
    """short texts with much to copy: from these a small model learns soonest to take words from what was said"""
    turns = []
    for _ in range(rnd.choices([1, 2, 3], [50, 30, 20])[0]):
        q, st = request(rnd, False)
        s, r = st["s"], rnd.random()
        opening = cap(fill(rnd.choice(OPEN), s))
        if s["adj"] and ADJ.get(s["adj"]) and rnd.random() < 0.4:
            opening += " " + cap(fill(rnd.choice(ADJ[s["adj"]]), s))
        if r < 0.4:
            x = an((s["adj"] + " " if s["adj"] else "") + s["kind"])
            if rnd.random() < 0.3:
                x += rnd.choice([" named ", " called "]) + s["N"]
            if rnd.random() < 0.6:
                x += rnd.choice([" who lives ", " who lived ", " that lives ", " "]) + s["P"]
            turns.append((noise(rnd, rnd.choice(BEGIN).format(x=x)), opening))
        elif r < 0.55:
            x = rnd.choice([opening, s["N"], s["kind"], s["ak"], cap(s["ah"]) + " lived " + s["P"] + ".", s["P"]])
            turns.append((rnd.choice(REPEAT).format(x=x), x))
        else:
            text = opening
            if rnd.random() < 0.6:
                text += " " + fill(rnd.choice(["{His} best friend was {ah}.", "One day, {N} met {ah}.", "Next door lived {ah}."]), s)
                ok = ("name", "place", "who", "about", "like", "hname", "hwho", "hunk")
            else:
                ok = ("name", "place", "who", "about", "like")
            seen = set()
            for i in range(rnd.randint(1, 3)):
                _, q, a, _ = rnd.choice([x for x in questions(rnd, st) if x[0] in ok])
                if q not in seen:
                    seen.add(q)
                    turns.append((text + " " + q if i == 0 else noise(rnd, q), a))
    return turns


def chat(rnd, held=False, full=False):
    """a list of (role, text); full: the mix of the second stage (the tokenizer is learned on the other one)"""
    turns = []
    if rnd.random() < 0.2:
        turns.append(("system", rnd.choice(SYSTEM)))

    def add(qa):
        turns.append(("user", qa[0]))
        turns.append(("assistant", qa[1]))

    def follow(st, n):
        qs = questions(rnd, st)
        w = {"name": 3, "place": 3, "hname": 2, "helper": 1.5, "plot": 1.5}
        seen = set()
        for _ in range(n):
            q = rnd.choices(qs, [w.get(x[0], 0.6) for x in qs])[0]
            if q[1] in seen:
                continue
            seen.add(q[1])
            add((noise(rnd, q[1]), q[2]))
    r = rnd.random()
    if full and rnd.random() < 0.35:
        for qa in short_turns(rnd):
            add(qa)
    elif r < (0.46 if full else 0.72):
        offered = False
        if rnd.random() < 0.08:
            add(talk_turn(rnd, rnd.choice([0, 0, 1, 6])))
            offered = True
        q, st = request(rnd, held)
        if full and rnd.random() < (0.4 if offered else 0.03):
            q, st = noise(rnd, rnd.choice(YES)), story(rnd, held=False)
        elif full and offered and rnd.random() < 0.3:
            st = story(rnd, adj="", kind=st["s"]["kind"])
            q = rnd.choice(["About {x}.", "About {x}, please.", "{x}", "Yes, about {x}."]).format(x=an(st["s"]["kind"]))
        add((q, st["text"]))
        k = rnd.choices([0, 1, 2, 3, 4], [10, 20, 30, 25, 15])[0]
        follow(st, k)
        r2 = rnd.random()
        if r2 < 0.18:
            q, st = request(rnd, held, again=True)
            if full and rnd.random() < 0.3:
                q, st = noise(rnd, rnd.choice(MORE_STORY)), story(rnd, held=False)
            add((q, st["text"]))
            follow(st, rnd.randint(1, 2))
        elif r2 < 0.3:
            add(rnd.choice([sum_turn, fact_turn])(rnd))
        if rnd.random() < 0.15:
            add(talk_turn(rnd, rnd.choice([2, 2, 3, 4])))
    elif r < 0.97:
        for _ in range(rnd.choices([1, 2, 3, 4, 6], [30, 30, 25, 15, 20 if full else 0])[0]):
            f = rnd.choices([sum_turn, fact_turn, talk_turn, cant_turn, more_turn], [34, 40, 15, 11, 8 if full else 0])[0]
            add(f(rnd))
    else:                                                     # the user gives the story
        st = story(rnd, held=held)
        qs = questions(rnd, st)
        q = rnd.choice(qs)
        add((st["text"] + "\n\n" + q[1], q[2]))
        follow(st, rnd.randint(0, 2))
    return turns


def document(rnd, held=False):
    """a document of the first stage: mostly a story, sometimes a page of facts or sums"""
    r = rnd.random()
    if r < 0.93 or held:
        return story(rnd, held=held)["text"]
    if r < 0.97:
        return " ".join(rnd.choice(FACTS)[1] for _ in range(rnd.randint(3, 7)))
    out = []
    while len(out) < 8:
        a, op, b = rnd.choice(SUMS)
        if not sum_held_out(a, op, b):
            out.append(ask_sum(rnd, a, op, b)[1])
    return "\n".join(out)


def batches(stage):
    """The training text of a stage in batches of 300: (documents, conversations). It has no end, so
    that nothing is read twice."""
    rnd = random.Random(1000 * stage)
    while True:
        n = 300 if stage == 1 else 40
        yield ([document(rnd, False) for _ in range(n)],
               [chat(rnd, False, full=True) for _ in range(300 - n)])


def main():
    what, n, seed = (sys.argv + ["stories", "5", "1"][len(sys.argv) - 1:])[1:4] if len(sys.argv) < 4 else sys.argv[1:4]
    rnd = random.Random(int(seed))
    if what == "count":
        rows = sum(len(p["slots"]) for p in PLOTS)
        beats = sum(len(b) for p in PLOTS for b in p["beats"] if isinstance(b, list))
        print(f"{len(PLOTS)} plots, {rows} sets of slots, {beats} phrasings of beats, {len(ALL_KINDS)} heroes, {len(ADJS)} adjectives, "
              f"{sum(len(a) for _, _, a in LAND + WATER)} places, {len(set(GIRLS + BOYS + ANY))} names, {len(FACTS)} facts, {len(SUMS)} sums")
        print(f"{rows * len(ALL_KINDS) * len(END):,} plots with hero and ending")
        return
    for _ in range(int(n)):
        if what == "held":                                     # stories of held-out heroes, for run -x
            print(story(rnd, held=True)["text"] + "<|endoftext|>", end="")
            continue
        if what == "chats":
            for role, t in chat(rnd, full=True):
                print(f"[{role}] {t}")
        else:
            print(document(rnd))
        print("\n-----\n")


if __name__ == "__main__":
    main()
