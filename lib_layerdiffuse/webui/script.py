"""The AlwaysOnScript: short hooks, in the WebUI's order, that hand over to the job at hand."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from typing import Any

from PIL import Image

from ..core.errors import InputError, LayerDiffuseError, unforeseen
from ..form.accordion import build_accordion
from ..form.arguments import ARGUMENTS, BY_NAME, INFOTEXT_PREFIX, parse_positional
from .chains.chain_run import chain_run
from .chains.steps import chain_of
from .finding import diagnosing
from .finding.answers import button
from .finding.recipes import Recipes
from .finding.trial_jobs import asked_for, trial_of
from .host.host import computing_device, loaded_base, loaded_base_note
from .host.modules import host_module, option
from .jobs.given_images import tell_about_images, tell_about_the_tab
from .jobs.job import ATTRIBUTE, Job, fresh, job_of
from .jobs.networks import Networks
from .jobs.pictures import ClearLayer, check_latents, clear, decode_batch
from .jobs.request import Request
from .layer_files import own_files
from .layer_files.downloads import HostLayerFiles
from .page.header import input_accordion_header
from .page.options import read_options
from .saving import beside, files
from .saving.finishing import as_layer, cut_out, finished
from .saving.keeping import with_alpha
from .saving.last_result import LastResults, visitor_in
from .saving.last_sets import LastSets
from .tile_scripts.selected import selected_of, way_of

logger = logging.getLogger(__name__)

Scripts: Any = host_module("scripts")
TITLE = "LayerDiffuse"


def guarded(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook of a running job only, whose typed errors end the job with a message."""

    @functools.wraps(hook)
    def call(self: LayerDiffuseScript, p: Any, *arguments: Any, **named: Any) -> None:
        job = job_of(p)
        if job is None:
            return
        try:
            hook(self, job, *arguments, **named)
        except LayerDiffuseError as error:
            job.request.fail(error)
        except Exception as error:  # whatever it was: the WebUI would swallow it and give out a wrong picture
            logger.exception("LayerDiffuse failed in %s", hook.__name__)
            job.request.fail(unforeseen(error), logged=True)

    return call


class LayerDiffuseScript(Scripts.Script):
    """LayerDiffuse in txt2img and img2img: one object each, which share what is in memory and the last results."""

    networks, last, sets, recipes = Networks(), LastResults(), LastSets(), Recipes()

    def title(self) -> str:
        return TITLE

    @property
    def tab(self) -> str:
        """The tab of the page that it works in."""
        return "img2img" if getattr(self, "is_img2img", False) else "txt2img"

    def show(self, is_img2img: bool) -> Any:
        return Scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """The accordion; its components in the order of the table of arguments, then the name of the page."""
        tab = "img2img" if is_img2img else "txt2img"
        accordion = build_accordion(
            base=loaded_base,
            base_note=loaded_base_note,
            header=input_accordion_header,
            prefix=f"{tab}_layerdiffuse",
            last_result=self.last.get,
            files=functools.partial(own_files.offered, self.networks.catalogue),
            offers=lambda method: HostLayerFiles(read_options()).offers(method),
            chains=True,
            find_out=button(self.recipes, tab),
        )
        self.infotext_fields = accordion.infotext_fields()
        self.paste_field_names = accordion.paste_field_names
        return [*accordion.inputs, accordion.visitor]

    def before_process(self, p: Any, *values: Any) -> None:
        """A new job where the box is ticked; before the WebUI counts its pictures."""
        if is_copy(p):
            return
        finish(p)
        forget_infotext(p)
        if not wanted(p, values):
            if not is_inner(p):
                self.networks.forget_merged()
            return
        options, trial = read_options(), trial_of(p)
        selected = selected_of(p)
        request = Request(
            weakref.ref(p),
            options,
            HostLayerFiles(options),
            self.networks,
            visitor_in(values, len(ARGUMENTS)) if trial is None else "",
            is_tile=selected is not None and selected.has_tiles,
            asked=asked_for(p) if trial is None else None,
            trial=trial,
        )
        setattr(p, ATTRIBUTE, Job(request))
        free_when_gone(p, self.networks)
        self._start(p, values)

    @guarded
    def _start(self, job: Job, values: tuple[Any, ...]) -> None:
        count = len(ARGUMENTS)
        values = values[:count] + values[count + 1 :]
        if values and isinstance(values[0], dict):  # one mapping; the WebUI fills up with the page's values
            values = values[:1]
        chain = chain_of(job.p)
        if chain is None:
            trial = job.request.trial
            job.request.take(trial.arguments if trial is not None else fresh(job.p, parse_positional(values)))
            selected = selected_of(job.p)
            if selected is not None:
                selected.check(job.request.arguments)
            chain = chain_run(job.request.arguments)
        if chain is not None:
            job.request.take_step(chain)
        job.take_place()

    def process(self, p: Any, *values: Any) -> None:
        """The model is loaded: check and read all that the job needs."""
        self._prepare(p)
        job = job_of(p)
        if job is not None and job.failed:
            job.request.stop()

    @guarded
    def _prepare(self, job: Job) -> None:
        if job.failed:
            return
        job.prepare()
        if getattr(job.p, "init_images", None):
            way = way_of(job.p)
            if way is not None:
                way.give(job.p)
            tell_about_the_tab(job.request, job.p.init_images)
        job.take_part()
        tell_about_images(job.run, job.init_images.pictures if job.init_images else ())

    def before_process_batch(self, p: Any, *values: Any, **named: Any) -> None:
        job = job_of(p)
        if job is not None and job.failed:
            p.prompts = []  # by which a WebUI ends its batches
        elif job is not None and job.prompts is not None:
            job.prompts.begin_batch()

    @guarded
    def process_before_every_sampling(self, job: Job, *values: Any, **named: Any) -> None:
        job.prepare_pass(named["x"])

    @guarded
    def post_sample(self, job: Job, samples: Any, *values: Any) -> None:
        """The latents after the blending of masks, unless a second pass decoded them already."""
        is_decoded = getattr(samples.samples, "already_decoded", False)
        if not job.failed and hasattr(samples.samples, "shape") and not is_decoded:
            job.run.take_latents(samples.samples)

    @guarded
    def postprocess_batch_list(self, job: Job, batch: Any, *values: Any, **named: Any) -> None:
        """Decode the batch; a failed job gives out no picture, one that cannot be decoded the opaque ones."""
        job.outcome.begin_batch([])
        if job.failed:
            batch.images[:] = []
            return
        job.request.telling.tell()
        job.tell_seeds()
        try:
            latents = check_latents(job.run.latents, len(batch.images))
            job.outcome.begin_batch(decode_batch(job.run, batch.images, latents))
        except Exception as error:  # the sampling was not for nothing: the pictures go out, and the user is told
            logger.exception("the batch could not be decoded")
            job.request.note(f"the transparency could not be decoded, and the pictures are the opaque ones: {error}")

    @guarded
    def postprocess_image(self, job: Job, picture: Any, *values: Any) -> None:
        """Scripts after this one go on editing the same object: what it holds in the end tells what they did."""
        job.outcome.begin_picture(picture)

    @guarded
    def postprocess_maskoverlay(self, job: Job, told: Any, *values: Any) -> None:
        """The mask of this very picture, which scripts after this one may still change."""
        job.outcome.take_overlay(told)

    @guarded
    def last_word(self, job: Job, picture: Any, composite: Image.Image) -> None:
        """A picture before it is saved: `composite` is what the WebUI made, `picture` what other scripts made of it."""
        place = job.p.batch_index
        layer = job.outcome.layer_at(place)
        if layer is None:
            return
        found = clear(layer)
        if found is not None:
            made = ClearLayer(layer.frame, composite, finished(job, found, composite))
            picture.image = with_alpha(picture.image, made)
            if job.run.arguments.output_origin and not job.request.is_tile:
                job.outcome.add_origin(job.p.iteration * job.p.batch_size + place, layer.opaque)
        picture.image = as_layer(job, layer.frame, picture.image)
        if found is not None:
            job.outcome.cases += diagnosing.cases_of(job, picture.image)
        if job.request.chain is not None:
            job.request.chain.take(layer.frame, job.p.iteration * job.p.batch_size + place, picture.image)
        inside_mask = cut_out(job) if option("return_mask_composite", False) else None
        job.outcome.add((layer.frame, picture.image), inside_mask)
        self.last.remember(job.request.visitor, layer.frame, picture.image)
        self.sets.take(job, self.tab, job.p.iteration * job.p.batch_size + place, layer.frame, picture.image)

    def after_job(self, p: Any, processed: Any, known: list[Any]) -> None:
        """Alpha for what scripts made, opaque pictures that were wanted too, texts for an API; the job is over."""
        self._deliver(p, processed, known)
        job = job_of(p)
        if job is not None:
            job.request.telling.report(processed.extra_generation_params)
        finish(p)

    @guarded
    def _deliver(self, job: Job, processed: Any, known: list[Any]) -> None:
        beside.give_back_alpha(job, processed, known)
        self._learn(job)
        processed.all_seeds = job.told_seeds
        processed.seed = next(iter(processed.all_seeds), processed.seed)
        tell_late(job.p, processed)
        way = way_of(job.p)
        if way is not None:
            way.take(processed.images[processed.index_of_first_image :])
            return
        for place, image in job.outcome.deliver():
            add_picture(job.p, processed, place, image)
        if selected_of(job.p) is None and job.request.chain is None:  # else somebody goes on with the pictures
            files.for_api(job.p, processed)

    def _learn(self, job: Job) -> None:
        """What its alpha says of a job: to the user, or to who runs it to find out."""
        if job.request.trial is not None:
            job.request.trial.cases += job.outcome.cases
            return
        diagnosing.tell(job)
        self.recipes.keep(self.tab, job)


def tell_late(p: Any, processed: Any) -> None:
    """What was noted after the WebUI had put its comments together."""
    told = processed.comments or ""
    processed.comments = told + "".join(f"{text}\n" for text in getattr(p, "comments", {}) if text not in told)


def is_copy(p: Any) -> bool:
    """Whether `p` is a copy that a script (ADetailer) made while its job is at work: that job goes on without us."""
    return getattr(p, ATTRIBUTE, None) is not None and job_of(p) is None


def is_inner(p: Any) -> bool:
    """Whether this is ADetailer's own inpainting, which works on the opaque picture."""
    return getattr(p, "_ad_inner", False)


def wanted(p: Any, values: tuple[Any, ...]) -> bool:
    """Whether the box is ticked, by the page, an API call in either form, or a plot's axis."""
    if is_inner(p):
        return False
    if getattr(p, "layerdiffuse_axes", None) or trial_of(p) is not None:
        return True
    first = values[0] if values else False
    if isinstance(first, dict):
        first = first.get("enabled", first.get(f"{INFOTEXT_PREFIX}enabled", True))
    try:
        return BY_NAME["enabled"].parse(first)
    except InputError:
        return True  # the job will say what is wrong with it


def forget_infotext(p: Any) -> None:
    """What an earlier job of the same `p` left in its generation parameters."""
    for key in [key for key in p.extra_generation_params if key.startswith(INFOTEXT_PREFIX)]:
        del p.extra_generation_params[key]


def finish(p: Any) -> None:
    """End the job of `p`, if there is one."""
    job = job_of(p)
    if job is not None:
        delattr(p, ATTRIBUTE)
        selected = selected_of(p)
        if selected is not None:
            selected.see(job)
        job.finish()


def free_when_gone(p: Any, networks: Networks) -> None:
    """After an exception no hook is called: free the device's memory when `p` is gone, unless another job uses it."""
    networks.owner = token = object()
    weakref.finalize(p, networks.rest_for, token, computing_device())


def add_picture(p: Any, processed: Any, place: int, image: Any) -> None:
    """Append a picture to the results and save it as the WebUI saves samples."""
    text = processed.infotext(p, place)
    image.info["parameters"] = text
    processed.images.append(image)
    processed.infotexts.append(text)
    if p.save_samples():
        host_module("images").save_image(
            image,
            p.outpath_samples,
            "",
            processed.all_seeds[place],
            p.all_prompts[place],
            option("samples_format", "png"),
            info=text,
            p=p,
            suffix="-opaque",
        )
