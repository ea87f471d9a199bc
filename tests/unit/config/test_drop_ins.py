"""`director.config.init.drop_ins`: by which systemd runs what `director init` wrote."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from director.config.init.drop_ins import agent_drop_in, director_drop_in

UNITS = Path(__file__).parents[3] / "deploy/systemd"


class DropInTests(SynchronousTestCase):
    def test_director(self) -> None:
        """Its file is named, and the directory is the one more place where it may write."""
        file = director_drop_in("/etc/txdirector/main/directors/lb1", vips=False)
        self.assertEqual(file.mode, 0o644)
        comment, *lines = file.content.decode().splitlines()
        self.assertIn("/etc/systemd/system/txdirector.service.d/cluster.conf", comment)
        self.assertEqual(lines, ["[Service]", "ExecStart=",
                                 'ExecStart=/usr/bin/director run "/etc/txdirector/main/directors/lb1/director.toml"',
                                 'ReadWritePaths="/etc/txdirector/main/directors/lb1"'])

    def test_virtual_addresses(self) -> None:
        """With them it has what the units' own drop-in for them gives."""
        lines = (UNITS / "txdirector.service.d/vips.conf").read_text().splitlines()
        given = [line for line in lines if line and not line.startswith(("#", "["))]
        self.assertEqual(director_drop_in("/x", vips=True).content.decode().splitlines()[-len(given):], given)

    def test_agent(self) -> None:
        """It only reads."""
        _, *lines = agent_drop_in("/x").content.decode().splitlines()
        self.assertEqual(lines, ["[Service]", "ExecStart=", 'ExecStart=/usr/bin/director-agent --config "/x/agent.toml"'])

    def test_quoted(self) -> None:
        """Whatever a path has that means something to systemd."""
        lines = director_drop_in('/a b/50%/"$x"\\y', vips=False).content.decode().splitlines()
        self.assertEqual(lines[3:], ['ExecStart=/usr/bin/director run "/a b/50%%/\\"$$x\\"\\\\y/director.toml"',
                                     'ReadWritePaths="/a b/50%%/\\"$x\\"\\\\y"'])

    def test_the_units_commands(self) -> None:
        """They are those of the units, with another file."""
        for unit, file in (("txdirector", director_drop_in("/x", vips=False)), ("director-agent", agent_drop_in("/x"))):
            [command] = [line for line in (UNITS / f"{unit}.service").read_text().splitlines() if line.startswith("ExecStart=")]
            self.assertIn(command.rpartition(" ")[0], file.content.decode())
