"""NT-Xent over a Sequential Monte Carlo memory bank."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from lightly.loss.ntx_ent_loss import NTXentLoss
from torch import Tensor
from torch.nn.functional import normalize, softplus

from gmje_plugin.distributed import gather_rows, rank, require_distributed
from gmje_plugin.log_sum_exp import NegativesLogSumExp, column_log_sum_exp
from gmje_plugin.modules.smc_memory_bank import SMCMemoryBankModule
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_number,
    check_pair,
    check_positive,
    moves_state,
    takes_lightly_names,
    wide_dtype,
)


class SMCNTXentLoss(ShowsOptions, NTXentLoss):  # type: ignore[misc]
    """NT-Xent with negatives from an SMC memory bank and from the batch (Huang 2026, Eq. 33).

    In the place of lightly's ``NTXentLoss`` in MoCo; its arguments come first and mean the same.
    One pass over the bank, with one exponential for each pair of a query and a particle, gives
    the loss, its gradient and the weights by which the bank is updated; the (B, M) matrix of
    products is never held. With ``in_batch_negatives=False`` the loss equals ``NTXentLoss`` over
    the same bank. Places of the bank not yet filled are left out. The bank is updated in training
    mode when, as in lightly, ``out0`` requires a gradient. ``memory_bank_size=0`` is SimCLR's loss.

    In DenseCL's local loss give ``in_batch_negatives=False``: a batch of dense features holds other
    positions of the same image.

    A row with a NaN or infinite entry makes the loss NaN and does not enter the bank. The loss is
    computed in float32 under autocast, in float64 for float64 embeddings. Over a bank it can be
    differentiated once: ``create_graph=True`` is a RuntimeError in the backward pass.

    Attributes:
        temperature: Positive number, may be changed between steps, but not learned: there is no
            gradient to it. Default: 0.5, lightly's.
        memory_bank_size: Size of the bank as (num_features, dim), or 0 for none.
        gather_distributed: Whether the batches of all ranks serve as negatives and enter the bank.
        memory_bank: An ``SMCMemoryBankModule`` made before, instead of ``memory_bank_size``. Its
            ``ess_threshold=0`` is a FIFO queue. Its temperature, if it has one, must be the loss's,
            and the rows it holds must have unit norm, as those that this loss gives it.
        in_batch_negatives: Whether the keys and queries of the batch's other images are negatives
            too; they have a gradient through the queries.
        weighted: Whether the particles' weights enter the loss: log(M w_m) is added to the logits
            of the bank (Eq. 33).
        hardness: Exponent h >= 0 of the importance of hard negatives (Robinson et al. 2021,
            "Contrastive learning with hard negative samples"): the sum over the n negatives
            becomes n sum_j a_j^h e_j / sum_j a_j^h, where e = exp(s / temperature) and
            a = stop_gradient(e). Default: 0, all alike.
        terms: After a forward pass, the detached parts of the loss: ``alignment``, minus the mean
            positive logit, and ``uniformity``, the mean log-sum-exp; the loss is their sum.

    Raises:
        ValueError: If an argument is out of its range, options exclude each other, or the shapes,
            dtypes or devices of a batch do not fit.

    Examples:
        >>> criterion = SMCNTXentLoss(temperature=0.1, memory_bank_size=(4096, 128))
        >>> loss = criterion(query, key)  # was: NTXentLoss(0.1, memory_bank_size=(4096, 128))
    """

    temperature: float
    memory_bank: SMCMemoryBankModule

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        *,
        memory_bank: SMCMemoryBankModule | None = None,
        in_batch_negatives: bool = True,
        weighted: bool = False,
        hardness: float = 0.0,
    ) -> None:
        require_distributed(gather_distributed)
        super().__init__(check_positive("temperature", temperature), 0, gather_distributed)
        if memory_bank is None:
            self.memory_bank_size = memory_bank_size
            memory_bank = SMCMemoryBankModule(memory_bank_size, gather_distributed)
        else:
            _check_bank(memory_bank, memory_bank_size, gather_distributed, temperature)
            self.memory_bank_size = memory_bank.size
        self.memory_bank = memory_bank
        self.in_batch_negatives = in_batch_negatives
        self.weighted = weighted
        self.hardness = check_number("hardness", hardness, low=0.0)
        if memory_bank.size[0] == 0 and (weighted or hardness > 0.0):
            raise ValueError("weighted and hardness need a memory bank: set memory_bank_size.")
        self.terms: dict[str, Tensor] = {}

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, dim)
        out1: Tensor,  # shape: (B, dim)
    ) -> Tensor:  # shape: ()
        """The loss over the bank as it is, and then the bank's update.

        Args:
            out0: Online embeddings (queries), shape (B, dim); normalised here.
            out1: Embeddings of the other views (keys), shape (B, dim); normalised here.

        Returns:
            The mean loss over the batch, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        check_pair(out0, out1)
        check_positive("temperature", self.temperature)  # it may follow a schedule
        with torch.autocast(device_type=out0.device.type, enabled=False):
            dtype = wide_dtype(out0, out1)
            queries, keys = normalize(out0.to(dtype), dim=1), normalize(out1.to(dtype), dim=1)
            positives = (queries * keys).sum(dim=1) / self.temperature
            if self.memory_bank.size[0] == 0:
                loss: Tensor = super().forward(queries, keys)
            else:
                update = out0.requires_grad and moves_state(self)
                if out1.requires_grad and not out0.requires_grad and moves_state(self):
                    warnings.warn(
                        "out0 has no gradient but out1 has: the bank is not updated. The queries "
                        "come first, criterion(query, key).",
                        stacklevel=5,  # behind torch's calls of a module and the names' decorator
                    )
                negatives = self._negatives(queries, keys, update=update)
                # log(p + n) - log p without the cancellation of small losses.
                loss = softplus(negatives - positives, threshold=50.0).mean()
        alignment = -positives.detach().mean()
        self.terms = {"alignment": alignment, "uniformity": loss.detach() - alignment}
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _negatives(self, queries: Tensor, keys: Tensor, *, update: bool) -> Tensor:
        """Log of the sum over each query's negatives, shape (B,); updates the bank."""
        bank = self.memory_bank
        bank.follow(keys, name="out1")
        filled, count, first = bank.bank[: bank.count], bank.count, 0
        log_multiplicities = batch_keys = batch_queries = None
        if self.weighted and count > 0:
            log_multiplicities = bank.log_weights[:count] + math.log(count)
        if self.in_batch_negatives:
            batch_keys, batch_queries = keys, queries
            if self.gather_distributed:
                first = rank() * len(keys)
                batch_keys, batch_queries = gather_rows(keys), gather_rows(queries)
            count += 2 * len(batch_keys) - 2
        if count == 0:  # the first batch, without others
            negatives, scores = torch.full_like(queries[:, 0], -math.inf), queries[:0, 0]
        else:
            negatives, importance, scores = NegativesLogSumExp.apply(
                queries,
                filled,
                log_multiplicities,
                self.temperature,
                self.hardness,
                batch_keys,
                batch_queries,
                first,
            )
            if self.hardness > 0.0:
                negatives = negatives - importance + math.log(count)
        if update:  # last, so that an error leaves the bank as it was
            # The batch's columns leave own queries out.
            has_key_scores = self.in_batch_negatives and not bank.count_own_query
            bank.update(
                keys,
                queries,
                particle_scores=scores[: bank.count],
                key_scores=scores[bank.count :] if has_key_scores else None,
                score=partial(column_log_sum_exp, temperature=self.temperature),
            )
        return negatives


def _check_bank(
    memory_bank: SMCMemoryBankModule,
    memory_bank_size: int | Sequence[int],
    gather_distributed: bool,
    temperature: float,
) -> None:
    if not isinstance(memory_bank, SMCMemoryBankModule):
        raise ValueError(
            f"memory_bank must be an SMCMemoryBankModule, got {type(memory_bank).__name__}; "
            f"SMCMemoryBankModule(size, ess_threshold=0) is lightly's FIFO queue."
        )
    if memory_bank_size != 0:
        raise ValueError("memory_bank and memory_bank_size exclude each other: give one.")
    if memory_bank.gather_distributed != gather_distributed:
        raise ValueError(
            f"gather_distributed must be the memory_bank's, got {gather_distributed} "
            f"and {memory_bank.gather_distributed}."
        )
    if memory_bank.temperature not in (None, temperature):
        raise ValueError(
            f"temperature must be the memory_bank's, got {temperature} "
            f"and {memory_bank.temperature}."
        )
