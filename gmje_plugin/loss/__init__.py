"""Losses that replace parts of ``lightly.loss``.

Likelihoods and entropies are sums over features, in nats. As losses they are divided by d, the
features of one view (of the target, where the views differ): nats per dimension, as density models
report them. Their gradients are then of the size of a cosine's, at any d, and settings chosen for
``NTXentLoss`` or ``NegativeCosineSimilarity`` train them too. Only the contrastive bound of
``GMJEMDNLoss`` stays in nats, as InfoNCE is. ``loss.terms`` holds the paper's quantities, in whole
nats.

Every loss is called as the one it stands in for: ``criterion(out0, out1)``, or with lightly's
argument names.
"""

from gmje_plugin.loss.gje_dual_loss import GJEDualLoss
from gmje_plugin.loss.gje_entropy_loss import GJEEntropyLoss
from gmje_plugin.loss.gje_nll_loss import GJENLLLoss
from gmje_plugin.loss.gmje_mdn_loss import GMJEMDNLoss
from gmje_plugin.loss.gmje_prototype_loss import GMJEPrototypeLoss
from gmje_plugin.loss.hsic_loss import HSICLoss
from gmje_plugin.loss.joint_smc_loss import JointSMCLoss
from gmje_plugin.loss.smc_ntxent_loss import SMCNTXentLoss

__all__ = [
    "GJEDualLoss",
    "GJEEntropyLoss",
    "GJENLLLoss",
    "GMJEMDNLoss",
    "GMJEPrototypeLoss",
    "HSICLoss",
    "JointSMCLoss",
    "SMCNTXentLoss",
]
