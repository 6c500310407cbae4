"""What every training run needs, be it of a student or of a label engine."""
