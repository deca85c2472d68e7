"""Why a picture has no alpha: what a job did, what of that is known to break it, and what to try."""
