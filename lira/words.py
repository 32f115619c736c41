"""The sentences of the report that do not depend on the figures: what the attacker knows, how a figure is read."""

KNOWS = (
    "which pictures might have been trained on, and their right labels",
    "data of the same kind that the target never saw, enough to train models of its own (the shadows)",
    "how the target was trained: network, optimizer, epochs, privacy settings",
    "the target's answers: its confidence in every class, as often as it likes",
)
DOES_NOT_KNOW = (
    "which of the pictures the target was trained on",
    "the target's weights, gradients or earlier states",
    "the rest of the target's training set",
)
THEREFORE = (
    "Someone who sees labels alone, or who cannot train models like this one, will usually do worse; someone who also "
    "knows the weights, or slips in pictures of their own before training, can do better. The figures hold for this "
    "training recipe and these samples, with the shadows as they are."
)
FROM_ELSEWHERE = "These scores came from elsewhere: whether this describes how they were made, their makers know."

READING = (
    ("attacks", "Table of attacks", "Accuracy is what an attacker reaches who sets the threshold on the shadows alone; "
     "AUC and TPR at FPR are drawn with the truth at hand: how well the scores sort members from non-members, and the "
     "share of members found while at most that share of non-members is accused. In brackets 95 % intervals, which "
     "take the shadows as given; over several targets the ends for AUC and TPR are means, as wide as for one target."),
    ("roc", "ROC", "Each point is a threshold: to the right, how many non-members are wrongly accused; upwards, how "
     "many members are found. On the dotted diagonal the attack guesses; what counts for privacy is how far the curve "
     "lies above it at the left edge. Crosses are 95 % intervals of both rates. Steps are raw, nothing is smoothed; "
     "several targets are averaged upwards."),
    ("histogram", "Score histograms", "The more the two outlines overlap, the less the model gives away. The dotted "
     "line is the threshold, set on the shadows; the outermost 2.5 % of scores are gathered at the edges."),
    ("curve", "Number of shadows", "A curve that still climbs on the right says that an attacker with more shadow "
     "models would do better than this page shows. Upright lines are 95 % intervals."),
    ("exposed", "Pictures", "Members that the attack is surest of, beside members that it takes for pictures "
     "never seen. Pictures that look unlike the rest of their class are usually the exposed ones."),
    ("classes", "Classes", "Each dot is how often the attack is right about the pictures of one class, with its 95 % "
     "interval; of many classes some lie far out by chance alone."),
    ("training", "Training curves", "A wide gap between training and test accuracy is learning by heart, which is what "
     "the attack feeds on. The lines are the targets; the bands reach from the lowest to the highest shadow. Training "
     "accuracy is the running one, over the batches of the epoch."),
)  # fmt: skip
