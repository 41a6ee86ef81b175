"""General prompts and texts, which suites use that name none of their own.

32 short texts of eight subjects, four of each. The prompts are their beginnings. Any language
model knows how to go on, and few adapters are trained on them: so they show whether an
adapter does anything at all, and whether it broke what it should have left alone. Whether it
learned its own subject only prompts of that subject show.
"""

from __future__ import annotations

from typing import Final

__all__ = ["GENERAL_PROMPTS", "GENERAL_TEXTS"]

_BEGINNINGS_AND_ENDS: Final = (
    # nature
    ("The leaves of most trees turn", " yellow in autumn, when the green in them breaks down."),
    ("When water freezes, it", " expands, which is why ice floats and pipes burst in winter."),
    ("Bees find their way back to the hive by", " the position of the sun and by landmarks."),
    ("The tide rises and falls because", " the moon pulls on the sea as the earth turns below."),
    # science
    ("Light travels faster than", " sound, so we see the lightning before we hear the thunder."),
    ("The heart pumps blood through", " the body, about five litres in every minute of rest."),
    ("Plants use the energy of sunlight to", " turn carbon dioxide and water into sugar."),
    ("An electric current flows when", " a battery, a wire and a lamp form a closed circuit."),
    # geography
    ("The capital of France is", " Paris, a city of two million people on the river Seine."),
    ("The longest river in South America is", " the Amazon, which flows into the Atlantic."),
    ("Mount Everest stands on the border between", " Nepal and China, in the Himalayas."),
    ("Most of the people of Egypt live near", " the Nile, because all around it is desert."),
    # history
    ("The printing press made books", " cheaper, so that many more people learned to read."),
    ("The Romans built roads so that", " soldiers and letters could travel quickly."),
    ("In 1969 two astronauts", " landed on the moon and walked on its surface for two hours."),
    ("The Industrial Revolution began in", " Britain, where steam drove the cotton mills."),
    # everyday life
    ("To bake bread you need", " flour, water, salt and yeast, and a few hours of patience."),
    ("She opened the door and saw", " her brother, who had come home a day earlier than planned."),
    ("After a long day at work, he", " put the kettle on, sat down and read the newspaper."),
    ("Before you change a flat tyre,", " loosen the nuts a little, and only then lift the car."),
    # work and money
    ("A letter of application should", " be short, and say why you would do the work well."),
    ("The price of a house depends on", " its size, its age and the place where it stands."),
    ("The meeting was moved to Thursday because", " the manager had to visit a customer."),
    ("If you borrow money from a bank,", " you pay it back in parts, together with interest."),
    # language and the arts
    ("The opposite of hot is", " cold, and the opposite of early is late."),
    ("A sonnet is a poem of", " fourteen lines, often about love, with a pattern of rhymes."),
    ("The orchestra fell silent when", " the conductor raised his hand for the violins."),
    ("Once upon a time there was", " a miller who had three sons and a very clever cat."),
    # numbers and computers
    ("To sort a list of numbers, a program", " compares two of them and swaps them if needed."),
    ("A password should be", " long, hard to guess, and used for one account only."),
    ("A dozen eggs are twelve, so two dozen are", " twenty-four, and half a dozen are six."),
    ("The angles of a triangle add up to", " one hundred and eighty degrees, in any triangle."),
)

GENERAL_PROMPTS: Final = tuple(beginning for beginning, _ in _BEGINNINGS_AND_ENDS)
GENERAL_TEXTS: Final = tuple(beginning + end for beginning, end in _BEGINNINGS_AND_ENDS)
