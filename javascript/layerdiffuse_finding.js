// The button that finds out why there is no alpha: a task of the WebUI, with its progress bar and its Interrupt.
function layerdiffuseFindOut(tab) { // eslint-disable-line no-unused-vars
    const task = randomId();
    const place = gradioApp().getElementById(`${tab}_gallery_container`) ?? gradioApp().getElementById(`${tab}_gallery`);
    showSubmitButtons(tab, false);
    requestProgress(task, place, null, () => showSubmitButtons(tab, true));
    return task;
}
