"""
Tests for `msgbus.web.sorted_names`.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from msgbus.web.sorted_names import PART, SortedNames, names_below

from ..strategies import names


class SortedNamesTests(SynchronousTestCase):
    """
    Sorting names a part at a time.
    """

    def setUp(self):
        self.now = 0.0
        self.names = []
        self.asked = 0
        self.sorted = SortedNames(self.ask, lambda: self.now)

    def ask(self):
        self.asked += 1
        return list(self.names)

    def test_parts(self):
        """
        Each call sorts a part; the last one returns all parts.
        """
        self.names = [f"{number:06}" for number in reversed(range(2 * PART + 1))]
        self.assertEqual([self.sorted.sort(), self.sorted.sort()], [None, None])
        parts = self.sorted.sort()
        self.assertEqual(list(names_below(parts, "", None)), self.names[::-1])
        self.assertLessEqual(max(map(len, parts)), PART)

    def test_kept(self):
        """
        Many names are kept in order for a while, and few are not.
        """
        self.names = [f"{number}" for number in range(2 * PART)]
        self.sorted.sort()
        parts = self.sorted.sort()
        self.now += PART * 15e-6
        self.assertIs(self.sorted.sort(), parts)
        self.assertEqual(self.asked, 1)
        self.now += PART * 10e-6
        self.assertIsNone(self.sorted.sort())
        self.assertEqual(self.asked, 2)
        self.sorted.sort()
        self.names = ["x"]
        self.now += 1
        for _ in range(2):
            self.assertEqual(self.sorted.sort(), [["x"]])
        self.assertEqual(self.asked, 4)

    def test_none(self):
        """
        There may be no names.
        """
        self.assertEqual(list(names_below(self.sorted.sort(), "", None)), [])

    @given(
        st.lists(st.lists(names)),
        names.map(lambda name: name and name.rstrip("/") + "/"),
        st.none() | names,
    )
    def test_below(self, parts, folder, after):
        """
        Names below a folder come in order, and only those behind a given one.
        """
        parts = list(map(sorted, parts))
        self.assertEqual(
            list(names_below(parts, folder, after)),
            sorted(
                name
                for part in parts
                for name in part
                if name.startswith(folder) and (after is None or name > after)
            ),
        )
