"""How rows look to their owner: the same words in every answer and every event."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from darkroom.core.payments import PaymentView
from darkroom.core.photos import PhotoView
from darkroom.core.progress import Progress
from darkroom.flow.photo_links import PhotoLinks


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who sees what is theirs, with links that are theirs alone."""

    user_id: int
    links: PhotoLinks

    def photo(self, photo: PhotoView) -> dict[str, Any]:
        """A photo, with links that open it for some minutes."""
        return {
            "photoId": photo.id,
            "jobId": photo.job_id,
            "styleId": photo.style_id,
            "promptIndex": photo.prompt_index,
            "imageUrl": self.links.photo(user_id=self.user_id, photo_id=photo.id),
            "thumbnailUrl": self.links.photo(
                user_id=self.user_id, photo_id=photo.id, variant="thumb"
            ),
            "sha256": photo.sha256,
            "contentType": photo.content_type,
            "sizeBytes": photo.size_bytes,
            "width": photo.width,
            "height": photo.height,
            "isFavorite": photo.is_favorite,
            "redoJobId": photo.redo_job_id,
            "redoStatus": photo.redo_status,
            "createdAt": time_text(photo.created_at),
        }

    def counts(self, progress: Progress) -> dict[str, Any]:
        """How far a job is."""
        job = progress.job
        return {
            "jobId": job.id,
            "avatarId": job.avatar_id,
            "styleId": job.style_id,
            "paymentId": job.payment_id,
            "status": job.status,
            "totalPhotos": job.total_photos,
            "completedPhotos": job.completed_photos,
            "failedPhotos": job.failed_photos,
            "secondsLeft": progress.seconds_left,
            "refundedMinor": job.refunded_minor,
            "refundingMinor": job.refunding_minor,
            "currency": job.currency,
            "createdAt": time_text(job.created_at),
            "deadlineAt": time_text(job.deadline_at),
            "finishedAt": time_text(job.finished_at),
        }

    def job(self, progress: Progress) -> dict[str, Any]:
        """A job with its photos so far, in the set's order, and the set as one file."""
        photos = sorted(progress.photos, key=lambda photo: photo.prompt_index)
        archive = self.links.archive(user_id=self.user_id, job_id=progress.job.id)
        return {
            **self.counts(progress),
            "photosZipUrl": archive if photos else None,
            "photos": [self.photo(photo) for photo in photos],
        }


def payment_json(payment: PaymentView) -> dict[str, Any]:
    """A payment."""
    return {
        "paymentId": payment.id,
        "status": payment.status,
        "provider": payment.provider,
        "tierId": payment.tier_id,
        "photoCount": payment.photo_count,
        "amountMinor": payment.amount_minor,
        "currency": payment.currency,
        "checkoutUrl": payment.checkout_url if payment.status == "pending" else None,
        "avatarId": payment.order_avatar_id,
        "styleId": payment.order_style_id,
        "generationConsumed": payment.generation_consumed,
        "jobId": payment.job_id,
        "compensatesPaymentId": payment.compensates,
        "redoesPhotoId": payment.redoes_photo_id,
        "refundedMinor": payment.refunded_minor,
        "refundingMinor": payment.refund_reserved_minor - payment.refunded_minor,
        "createdAt": time_text(payment.created_at),
        "succeededAt": time_text(payment.succeeded_at),
    }


def time_text(moment: datetime | None) -> str | None:
    """A time as JSON has it."""
    return None if moment is None else moment.isoformat()
