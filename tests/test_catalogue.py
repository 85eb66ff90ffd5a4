"""What conf/ holds."""

from rl_runner import catalogue


def test_groups_and_their_options_are_the_directories_and_files_of_conf() -> None:
    conf = catalogue.conf_dir()
    assert (conf / "train.yaml").is_file()
    groups = catalogue.groups()
    assert groups == sorted(groups)
    assert {"agent", "network/torso", "tuned"} <= set(groups)
    assert not any(group.startswith("tuned/") for group in groups)  # those are agents
    for group in groups:
        options = catalogue.options(group)
        assert options == sorted(set(options))
        assert all((conf / group / f"{option}.yaml").is_file() for option in options)
        assert options, group
    assert {"none", "dqn/cartpole"} <= set(catalogue.options("tuned"))
    assert catalogue.options("no_such_group") == []
