"""The RSNA challenge's submission file and leaderboard."""
