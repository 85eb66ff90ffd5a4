"""What a newcomer types, and the one right line that answers it."""

from pathlib import Path

import pytest

from rl_runner.cli import hints
from rl_runner.launch import tuned
from tests.commandline import files, refused


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "cartpole",
            "the verb is missing, one of train, eval, play, export, doctor; did you mean rlrun train env=cartpole?",
        ),
        (
            "env=cartpole",
            "the verb is missing, one of train, eval, play, export, doctor; did you mean rlrun train env=cartpole?",
        ),
        (
            "--env cartpole",
            "the verb is missing, one of train, eval, play, export, doctor; did you mean rlrun train env=cartpole?",
        ),
        ("evaluate latest", "unknown verb 'evaluate'; did you mean eval?"),
        ("watch latest", "unknown verb 'watch'; did you mean play?"),
        ("resume latest", "unknown verb 'resume'; did you mean train resume=RUN?"),
        ("run env=pong", "unknown verb 'run'; did you mean train?"),
        ("train pong", "'pong': must be key=value; did you mean env=pong?"),
        ("train preset=x", "there is no key 'preset'; did you mean tuned=x?"),
        (
            "train network.torso.width=32",
            "there is no key 'network.torso.width'; did you mean network.torso.sizes? "
            "network/torso=auto_tanh or network/torso=linear or network/torso=mlp have it",
        ),
        ("train dqn", "'dqn': must be key=value; did you mean agent=dqn?"),
        ("train Cartpol", "'Cartpol': must be key=value; did you mean env=cartpole?"),
        ("train latest", "'latest': must be key=value; did you mean resume=latest?"),
        ("train seed = 3", "'seed': must be key=value, without spaces: seed=..."),
        ("train CartPole-v1", "'CartPole-v1': must be key=value; did you mean env=cartpole?"),
        ("train --env=pong", "there is no option '--env'; keys are set without dashes: env=pong"),
        ("train --env pong", "there is no option '--env'; keys are set without dashes: env=pong"),
        ("train --env Pusher-v5", "there is no option '--env'; keys are set without dashes: env=gym env.id=Pusher-v5"),
        ("train --seed 3", "there is no option '--seed'; keys are set without dashes: seed=3"),
        ("train --lr 1e-3", "there is no option '--lr'; keys are set without dashes: optimizer.lr=1e-3"),
        ("train --total-steps=9", "there is no option '--total-steps'; keys are set without dashes: total_steps=9"),
        ("train --resume latest", "there is no option '--resume'; keys are set without dashes: resume=latest"),
        ("eval --episodes 3 latest", "there is no option '--episodes'; keys are set without dashes: episodes=3"),
        ("eval --cgf job", "there is no option '--cgf'; did you mean --cfg?"),
        ("play pong", "pong: no such run; did you mean env=pong, a random agent?"),
        ("train lr=1e-3", "there is no key 'lr'; did you mean optimizer.lr=1e-3?"),
        ("train steps=1000", "there is no key 'steps'; did you mean total_steps=1000?"),
        ("train algo=dqn", "there is no key 'algo'; did you mean agent=dqn?"),
        ("train gamma=0.9", "there is no key 'gamma'; did you mean agent.gamma=0.9?"),
        ("train buffer_size=100", "there is no key 'buffer_size'; did you mean replay.capacity=100?"),
        ("train optimizer.learning_rate=1", "there is no key 'optimizer.learning_rate'; did you mean optimizer.lr=1?"),
        ("train exploration.epsilon=1", "there is no key 'exploration.epsilon'; did you mean exploration.end=1?"),
        ("train stop.retrun=3", "there is no key 'stop.retrun'; did you mean stop.return?"),
        ("train network.width=3", "there is no key 'network.width'; rlrun train --help network lists the keys"),
        ("train wandb=true", "there is no key 'wandb'; rlrun train --help lists the keys"),
        ("train render=1", "there is no key 'render'; training is not shown, a trained agent is: rlrun play RUN"),
        ("train agent.lr=0.1", "there is no key 'agent.lr' with these options; did you mean optimizer.lr=0.1?"),
        ("train replay.size=9", "there is no key 'replay.size'; did you mean replay.capacity=9?"),
        (
            "train agent.target_update_interval=500",
            "there is no key 'agent.target_update_interval'; did you mean sync.every_steps=500?",
        ),
        (
            "train agent=ppo exploration.steps=9",
            "there is no key 'exploration.steps' with these options; exploration=boltzmann or "
            "exploration=epsilon_greedy or exploration=ez_greedy or exploration=gaussian or "
            "exploration=ornstein_uhlenbeck have it",
        ),
        ("train env=Blackjack-v0", "env: there is no 'Blackjack-v0'; did you mean env=gym env.id=Blackjack-v1?"),
        ("train network=c51", "network: there is no 'c51'; did you mean value=c51?"),
        ("train exploration=noisy", "exploration: there is no 'noisy'; did you mean network=noisy?"),
        (
            "train optimizer.momentum=0.9",
            "there is no key 'optimizer.momentum' with these options; optimizer=rmsprop or optimizer=sgd have it",
        ),
        (
            "train network.activation=tanh",
            "there is no key 'network.activation' with these options; network=control has it; "
            "network.torso.activation: network/torso=auto_tanh or network/torso=mlp have it",
        ),
        (
            "train +eval.greedy=true",
            "there is no key 'eval.greedy'; rlrun train --help eval lists the keys",
        ),
        ("train +stop.patience=5", "there is no key 'stop.patience'; rlrun train --help stop lists the keys"),
        ("train +replay.alpha=0.9", "there is no key 'replay.alpha'; rlrun train --help replay lists the keys"),
        ("train total_steps=2,000", "total_steps: 2,000 is a list of values; the number is written 2_000"),
        ("train --verson", "there is no option '--verson'; did you mean --version?"),
        ("train env=blackjack", "env: there is no 'blackjack'; did you mean env=gym env.id=Blackjack-v1?"),
        ("train env=CartPole-v1", "env: there is no 'CartPole-v1'; did you mean env=cartpole?"),
        ("train env=Pendulum-v1", "env: there is no 'Pendulum-v1'; did you mean env=pendulum?"),
        ("train env=CarRacing-v3", "env: there is no 'CarRacing-v3'; did you mean env=carracing?"),
        ("train env=ALE/Pong-v5", "env: there is no 'ALE/Pong-v5'; did you mean env=pong?"),
        (
            "train env=ALE/DoubleDunk-v5",
            "env: there is no 'ALE/DoubleDunk-v5'; did you mean env=atari env.game=double_dunk?",
        ),
        ("train env=ALE/UpNDown-v5", "env: there is no 'ALE/UpNDown-v5'; did you mean env=atari env.game=up_n_down?"),
        ("train env=Pong-v4", "env: there is no 'Pong-v4'; did you mean env=pong?"),
        (
            "train env=Blackjack-v1",
            "env: there is no 'Blackjack-v1'; did you mean env=gym env.id=Blackjack-v1?",
        ),
        ("train experiment=pong_fast", "experiment: there is no 'pong_fast'; did you mean env=pong?"),
        ("train agent=double_dqn", "agent: there is no 'double_dqn'; did you mean agent=dqn agent.double=true?"),
        ("train replay=PER", "replay: there is no 'PER'; did you mean replay=prioritized?"),
        (
            "train exploration_fraction=0.2",
            "there is no key 'exploration_fraction'; did you mean exploration.steps, a number of steps, not a fraction "
            "of total_steps?",
        ),
        (
            "train target_update_interval=500",
            "there is no key 'target_update_interval'; did you mean sync.every_steps=500?",
        ),
        (
            "train -m env=frozenlake agent=q_learning,dqn agent.lr=0.1",
            "there is no key 'agent.lr' with all of these options; agent=q_learning or agent=sarsa have it",
        ),
        (
            "train -m env=frozenlake agent=q_learning,dqn agent.lr=0.1,0.2",
            "there is no key 'agent.lr' with all of these options; agent=q_learning or agent=sarsa have it",
        ),
        ("train resume=", "resume: must be a run's directory or latest, got an empty name"),
        ("train agent=DQN", "agent: there is no 'DQN'; did you mean dqn?"),
        ("train network=cnn", "network: there is no 'cnn'; did you mean network/torso=cnn?"),
        (
            "train optimizer=adagrad",
            "optimizer: there is no 'adagrad'; did you mean optimizer._target_=torch.optim.Adagrad?",
        ),
    ],
)
def test_what_newcomers_type(line: str, says: str, workdir: Path) -> None:
    assert refused(*line.split()) == f"rlrun: {says}"
    assert files() == set()


@pytest.mark.parametrize(
    ("words", "key", "meant"),  # names of Stable-Baselines3 and CleanRL, and the same quantity here
    [
        ("agent=ppo", "n_steps", "rollout_steps"),
        ("agent=ppo", "num_steps", "rollout_steps"),
        ("agent=ppo", "gae_lambda", "agent.lam"),
        ("agent=ppo", "agent.gae_lambda", "agent.lam"),
        ("agent=ppo", "ent_coef", "agent.entropy_coef"),
        ("agent=ppo", "vf_coef", "agent.value_coef"),
        ("agent=ppo", "clip_range", "agent.clip"),
        ("agent=ppo", "agent.clip_coef", "agent.clip"),
        ("agent=ppo", "update_epochs", "agent.epochs"),
        ("agent=ppo", "norm_adv", "agent.normalize_advantages"),
        ("agent=sac env=pendulum", "ent_coef", "agent.alpha"),
        ("agent=sac env=pendulum", "policy_lr", "agent.actor_lr"),
        ("agent=td3 env=pendulum", "target_policy_noise", "agent.target_noise"),
        ("agent=td3 env=pendulum", "noise_clip", "agent.target_noise_clip"),
        ("agent=td3 env=pendulum", "policy_frequency", "agent.policy_delay"),
        ("agent=dqn", "n_steps", "total_steps"),  # it has no rollouts
    ],
)
def test_names_of_other_libraries_for_the_chosen_agent(words: str, key: str, meant: str, workdir: Path) -> None:
    line = refused("train", *words.split(), f"{key}=1")
    assert line == f"rlrun: there is no key {key!r}; did you mean {meant}=1?"


def test_a_run_in_the_place_of_an_override(trained: Path) -> None:
    assert refused("train", str(trained)) == f"rlrun: '{trained}': must be key=value; did you mean resume={trained}?"


def test_every_other_name_leads_to_options_that_there_are() -> None:
    for (group, _), words in hints.RENAMED.items():
        assert words.startswith((f"{group}=", "env="))
        tuned.compose(words.split())
