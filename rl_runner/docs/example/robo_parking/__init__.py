"""A robot parks itself: an environment, a torso and an exploration rule for rlrun."""

import gymnasium

gymnasium.register("RoboParking-v0", "robo_parking.environment:RoboParking", max_episode_steps=40)
