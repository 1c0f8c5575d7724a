import re
import time
from io import BytesIO
from uuid import uuid4

import pytest
from uploads import LONG_NAME, files

from skxma import CLIPEncoder, load

server = pytest.importorskip("skxma.app._server", reason="the page needs Flask")
tabs_module = pytest.importorskip("skxma.app._tabs")


@pytest.fixture
def tabs():
    made = tabs_module.make_tabs("tiny")
    yield made
    made.close()


@pytest.fixture
def app(tabs):
    return server.make_app(tabs)


def test_the_page_names_all_encoders():
    made = tabs_module.make_tabs(["tiny", "photo"])
    try:
        assert Tab(server.make_app(made)).opened.json["encoder"] == "tiny + photo"
    finally:
        made.close()


class Tab:
    """The requests of one tab of the page."""

    def __init__(self, app):
        self.client = app.test_client()
        self.path = f"/tabs/{uuid4()}"
        self.opened = self.client.put(self.path)

    def __getattr__(self, method):
        return lambda path, **options: getattr(self.client, method)(f"{self.path}/{path}", **options)

    def fill(self, classes=("fox", "bear"), shots=slice(3)):
        columns = [column["number"] for column in self.get("state").json["columns"]]
        for label in classes:
            number = columns.pop(0) if columns else self.post("columns").json["columns"][-1]["number"]
            self.put(f"columns/{number}", json={"name": label})
            for file in files(label, shots):
                self.post(f"columns/{number}/images", **upload(file))
        return self

    def finish(self, path, **options):
        job = self.post(path, **options).json
        deadline = time.monotonic() + 60
        while job["state"] == "running" and time.monotonic() < deadline:
            time.sleep(0.02)
            job = self.get("job").json
        return job

    def fit(self):
        assert self.finish("fit")["state"] == "finished"
        return self.get("state").json["model"]

    def ask(self, label="fox", **form):
        (query,) = files(label, slice(4, 5))
        return self.finish("ask", **upload(query, **form))


@pytest.fixture
def tab(app):
    return Tab(app)


def upload(file, content=None, **form):
    content = file.read_bytes() if content is None else content
    name = getattr(file, "name", file)
    return {"data": {"file": (BytesIO(content), name), **form}, "content_type": "multipart/form-data"}


def test_from_images_to_an_answer_and_a_model(tab, tmp_path):
    assert [column["name"] for column in tab.opened.json["columns"]] == ["", ""]
    state = tab.fill().get("state").json
    assert [(c["name"], len(c["images"])) for c in state["columns"]] == [("fox", 3), ("bear", 3)]
    assert state["model"] is None
    model = tab.fit()
    assert (model["n_images"], model["change"], model["file"], model["can_reject"]) == (6, None, None, True)
    assert model["classes"] == [{"label": "bear", "n_images": 3}, {"label": "fox", "n_images": 3}]
    answer = tab.ask(model=model["number"])["answer"]
    assert answer["scores"][0]["label"] == "fox"
    assert answer["is_unknown"] is False
    assert answer["model"] == model["number"]
    assert tab.get(f"images/{answer['retrieved'][0]['image']}").mimetype == "image/png"
    assert answer["retrieved"][0]["name"] in {file.name for file in files("fox", slice(3))}
    assert tab.ask("tornado")["answer"]["is_unknown"] is True
    saved = tab.get("model")
    assert saved.headers["Content-Disposition"] == "attachment; filename=model.skxma"
    (tmp_path / "m.skxma").write_bytes(saved.data)
    assert load(tmp_path / "m.skxma").predict(files("fox", slice(4, 5))) == ["fox"]


def test_removals_are_undone(tab):
    before = tab.fill().get("state").json["columns"]
    state = tab.delete(f"images/{before[0]['images'][1]['number']}").json
    assert "was removed from “fox”" in state["undo"]
    state = tab.delete(f"columns/{before[1]['number']}").json
    assert "“bear” with 3 images" in state["undo"]
    state = tab.post("example").json
    assert [column["name"] for column in state["columns"]] == ["bear", "cat face", "fox", "poodle"]
    assert state["examples"] == ["bear", "cat face", "tornado"]
    assert "replaced by the example" in state["undo"]
    for _ in range(3):
        state = tab.post("undo").json
    assert state["columns"] == before
    assert state["undo"] is None
    assert state["examples"] == []
    answer = tab.post("undo")
    assert (answer.status_code, answer.json["error"]) == (409, "There is nothing to undo.")


def test_images_without_labels_are_suggested_labeled_and_fitted_in_rounds(tab):
    labels = ("fox", "bear", "poodle")
    tab.fill(labels, slice(0))
    assert tab.post("suggest").json["error"].startswith("There are no images without a label")
    of = {}
    for label in labels:
        for file in files(label, slice(5)):
            state = tab.post("pool", **upload(f"{label}-{file.name}", file.read_bytes())).json
    assert state["pool"] == {"n_images": 15, "suggested": []}
    column = {one["name"]: one["number"] for one in state["columns"]}
    for round in range(1, 3):
        assert tab.finish("suggest")["state"] == "finished"
        suggested = tab.get("state").json["pool"]["suggested"]
        assert len(suggested) == (12 if round == 1 else 9)
        assert not {one["number"] for one in suggested} & set(of)
        assert tab.get(f"images/{suggested[0]['number']}").mimetype == "image/png"
        for one in suggested[:6]:
            of[one["number"]] = label = one["name"].partition("-")[0]
            state = tab.put(f"images/{one['number']}", json={"column": column[label]}).json
        assert state["pool"]["n_images"] == 15 - 6 * round
        assert [one["number"] for one in state["pool"]["suggested"]] == [one["number"] for one in suggested[6:]]
        assert tab.fit()["n_images"] == 6 * round
    assert tab.ask("fox")["answer"]["scores"][0]["label"] == "fox"
    held = {image["number"]: one["name"] for one in state["columns"] for image in one["images"]}
    assert held == of


def test_labeling_and_removing_images_without_labels_is_undone(tab):
    tab.fill(("fox", "bear"), slice(0))
    for file in files("fox", slice(3)):
        before = tab.post("pool", **upload(file)).json
    # what is here already is not added again
    assert tab.post("pool", **upload(files("fox", slice(1))[0])).json["pool"]["n_images"] == 3
    tab.finish("suggest")
    first, second, third = (one["number"] for one in tab.get("state").json["pool"]["suggested"])
    number = before["columns"][0]["number"]
    state = tab.put(f"images/{first}", json={"column": number}).json
    assert "was put into “fox”" in state["undo"]
    assert tab.post("pool", **upload(files("fox", slice(1))[0])).json["pool"]["n_images"] == 2
    assert "from those without a label" in tab.delete(f"images/{second}").json["undo"]
    assert tab.delete("pool").json["undo"] == "1 image without a label was removed."
    for n_images in (1, 2, 3):
        state = tab.post("undo").json
        assert state["pool"]["n_images"] == n_images
    assert {one["number"] for one in state["pool"]["suggested"]} == {first, second, third}
    assert state["columns"] == before["columns"]
    assert tab.get(f"images/{third}").status_code == 200
    assert tab.put(f"images/{first}", json={"column": 99}).status_code == 409
    assert tab.put("images/99", json={"column": number}).status_code == 409


def test_an_image_without_a_label_makes_the_class_that_it_is_given(tab):
    for file in files("fox", slice(4)):
        state = tab.post("pool", **upload(file)).json
    tab.finish("suggest")
    numbers = [one["number"] for one in tab.get("state").json["pool"]["suggested"]]
    # two classes without a name are there from the start
    for number, name in zip(numbers, ("red fox", " red  fox ", "gray fox", "fennec"), strict=True):
        state = tab.put(f"images/{number}", json={"name": name}).json
    found = {one["name"]: len(one["images"]) for one in state["columns"]}
    assert found == {"red fox": 2, "gray fox": 1, "fennec": 1}
    assert "was put into “fennec”" in state["undo"]
    assert tab.post("undo").json["pool"]["n_images"] == 1
    empty = tab.put(f"images/{numbers[-1]}", json={"name": " "})
    assert (empty.status_code, empty.json["error"]) == (400, "Type the name of the class first.")
    assert tab.put("images/99", json={"name": "wolf"}).status_code == 409
    assert [one["name"] for one in tab.get("state").json["columns"]] == ["red fox", "gray fox"]


def test_a_class_that_one_image_made_goes_when_that_is_undone(tab):
    """A name without images would be a class too, known from its text."""
    for file in files("fox", slice(4)):
        tab.post("pool", **upload(file))
    before = tab.get("state").json["columns"]
    tab.finish("suggest")
    numbers = [one["number"] for one in tab.get("state").json["pool"]["suggested"]]
    for number, name in zip(numbers, ("fox", "bear", "crab", "fox"), strict=True):
        tab.put(f"images/{number}", json={"name": name})
    for _ in range(4):
        state = tab.post("undo").json
    assert state["columns"] == before
    # what was named or brought since stays
    for number, name in zip(numbers, ("fox", "bear", "crab", "crab"), strict=True):
        state = tab.put(f"images/{number}", json={"name": name}).json
    tab.post("undo")
    tab.put(f"columns/{state['columns'][-1]['number']}", json={"name": "lobster"})
    columns = tab.post("undo").json["columns"]
    assert [(one["name"], len(one["images"])) for one in columns] == [("fox", 1), ("bear", 1), ("lobster", 0)]


def test_an_image_that_is_brought_to_a_class_is_without_a_label_no_longer(tab):
    first, second = files("fox", slice(2))
    for file in (first, second):
        tab.post("pool", **upload(file))
    tab.finish("suggest")
    number = tab.get("state").json["columns"][0]["number"]
    pool = tab.post(f"columns/{number}/images", **upload(first)).json["pool"]
    assert (pool["n_images"], [one["name"] for one in pool["suggested"]]) == (1, [second.name])
    tab.finish("suggest")
    assert [one["name"] for one in tab.get("state").json["pool"]["suggested"]] == [second.name]


def test_a_model_says_how_good_it_should_be(tab):
    model = tab.fill(shots=slice(4)).fit()
    expected = model["expected"]
    assert 0 < expected["low"] < expected["high"] <= 1
    assert expected["confidence_level"] == 0.9


def test_images_without_labels_alone_keep_a_session(tab, tabs):
    (held,) = tabs._tabs.values()
    assert held.session.is_empty
    tab.post("pool", **upload(files("fox", slice(1))[0]))
    assert not held.session.is_empty


def test_tabs_share_nothing(app):
    first, second = Tab(app).fill(("fox", "bear")), Tab(app)
    second.post("example")
    second.fit()
    assert [column["name"] for column in first.get("state").json["columns"]] == ["fox", "bear"]
    assert first.get("state").json["model"] is None
    answer = first.post("ask", **upload(files("fox", slice(1))[0]))
    assert answer.status_code == 400
    assert answer.json["error"].startswith("Fit first")
    first.fit()
    labels = {score["label"] for score in first.ask()["answer"]["scores"]}
    assert labels == {"fox", "bear"}
    assert {score["label"] for score in second.ask()["answer"]["scores"]} == {"bear", "cat face", "fox", "poodle"}
    image = second.get("state").json["columns"][-1]["images"][-1]["number"]
    assert second.get(f"images/{image}").status_code == 200
    assert first.get(f"images/{image}").status_code == 409


def test_a_model_answers_only_while_its_classes_are_shown(tab):
    model = tab.fill().fit()
    number = tab.get("state").json["columns"][0]["number"]
    tab.put(f"columns/{number}", json={"name": "wolf"})
    assert tab.get("state").json["model"]["change"] == "classes"
    answer = tab.post("ask", **upload(files("fox", slice(1))[0]))
    assert (answer.status_code, "Fit again" in answer.json["error"]) == (400, True)
    tab.fit()
    answer = tab.post("ask", **upload(files("fox", slice(1))[0], model=model["number"]))
    assert (answer.status_code, "no longer the one" in answer.json["error"]) == (409, True)


def test_a_tab_without_a_session_is_told_why(app, tabs, monkeypatch):
    now = 0.0
    monkeypatch.setattr(tabs, "_clock", lambda: now)
    unknown = app.test_client().get(f"/tabs/{uuid4()}/state")
    assert unknown.status_code == 410
    assert "skxma app was started again since" in unknown.json["error"]
    tab = Tab(app).fill()
    folder = tabs.get(tabs_token(tab)).gallery.folder
    now = 11 * tabs_module.HOUR
    assert tab.get("state").status_code == 200
    now = 24 * tabs_module.HOUR
    answer = tab.get("state")
    assert (answer.status_code, "not used for 12 hours" in answer.json["error"]) == (410, True)
    assert not folder.exists()
    assert tab.client.put(tab.path).json["columns"][0]["images"] == []


def tabs_token(tab):
    from uuid import UUID

    return UUID(tab.path.rpartition("/")[2])


def test_a_closed_tab_keeps_its_session_for_a_while(app, tabs, monkeypatch):
    now = 0.0
    monkeypatch.setattr(tabs, "_clock", lambda: now)
    tab = Tab(app).fill()
    assert tab.post("leave").status_code == 204
    now = 60.0
    assert tab.get("state").status_code == 200
    now = 11 * tabs_module.HOUR  # loaded again, so that it is open
    assert tab.get("state").status_code == 200
    tab.post("leave")
    now += 1 + tabs_module.CLOSED_SECONDS
    assert "was closed for 15 minutes" in tab.get("state").json["error"]


def test_the_number_of_sessions_is_bounded(app, tabs):
    used = [Tab(app).fill(shots=slice(1)) for _ in range(tabs_module.MAX_TABS - 1)]
    empty = Tab(app)
    assert Tab(app).fill(shots=slice(1)).opened.status_code == 200
    assert "another tab needed the place" in empty.get("state").json["error"]
    refused = Tab(app)
    assert refused.opened.status_code == 503
    assert "Close one of them" in refused.opened.json["error"]
    used[3].post("leave")
    assert Tab(app).opened.status_code == 200
    assert used[3].get("state").status_code == 410
    assert len(tabs) == tabs_module.MAX_TABS
    assert all(tab.get("state").status_code == 200 for tab in used if tab is not used[3])


def test_a_model_is_opened_and_closed(tab, tmp_path):
    tab.fill().fit()
    saved = tab.get("model").data
    state = tab.post("model", **upload("animals.skxma", saved)).json
    model = state["model"]
    assert (model["file"], model["encoder"], model["n_images"]) == ("animals.skxma", "tiny", 6)
    assert [c["label"] for c in model["classes"]] == ["bear", "fox"]
    answer = tab.ask("bear", model=model["number"])["answer"]
    assert answer["scores"][0]["label"] == "bear"
    assert answer["retrieved"][0]["image"] is None
    assert answer["retrieved"][0]["name"] in {file.name for file in files("bear", slice(3))}
    assert len(state["columns"]) == 2
    assert tab.delete("model").json["model"]["file"] is None
    answer = tab.post("model", **upload("photo.skxma", b"\x89PNG"))
    assert answer.status_code == 400
    assert answer.json["error"].startswith("photo.skxma is no model file of skxma")


def test_warnings_of_a_fit_are_in_the_state(tab):
    tab.fill((LONG_NAME, "bear"), slice(1))
    fox = tab.get("state").json["columns"][0]["number"]
    tab.post(f"columns/{fox}/images", **upload(files("fox", slice(1))[0]))
    with pytest.warns(UserWarning, match="longer than the 24 tokens"):
        model = tab.fit()
    assert "longer than the 24 tokens" in model["warnings"][0]


def test_the_same_image_twice_is_in_the_state(tab):
    tab.fill()
    bear = tab.get("state").json["columns"][1]["number"]
    state = tab.post(f"columns/{bear}/images", **upload(files("fox", slice(1))[0])).json
    assert "in fox and in bear" in state["repeats"][0]["words"]


def test_errors_are_sentences(tab, tabs, monkeypatch):
    answer = tab.post("fit")
    assert answer.status_code == 400
    assert "two classes" in answer.json["error"]
    number = tab.get("state").json["columns"][0]["number"]
    answer = tab.post(f"columns/{number}/images", **upload("a.jpg", b"none"))
    assert answer.json["error"].startswith("a.jpg: not an image")
    assert tab.post(f"columns/{number}/images").json["error"] == "No file came with the request."
    assert tab.get("nowhere").json["error"]
    assert tab.put(f"columns/{number}", json=["no", "mapping"]).status_code == 200
    session = tabs.get(tabs_token(tab.fill()))
    session.encoder = "ViT-B-23/openai"
    job = tab.finish("fit")
    assert job["state"] == "failed"
    assert "Did you mean ViT-B-32/openai?" in job["error"]
    assert "`skxma app --encoder ViT-B-32/openai`" in job["error"]
    monkeypatch.setattr(session, "fit", lambda: 1 / 0)
    answer = tab.post("fit")
    assert answer.status_code == 500
    assert "went wrong in skxma itself (ZeroDivisionError" in answer.json["error"]


def test_an_error_of_our_own_in_a_fit_is_shown_and_traced(tab, monkeypatch, capsys):
    monkeypatch.setattr(CLIPEncoder, "encode_image", lambda *args: 1 / 0)
    job = tab.fill().finish("fit")
    assert job["state"] == "failed"
    assert "went wrong in skxma itself (ZeroDivisionError" in job["error"]
    assert "Traceback" in capsys.readouterr().err


def test_a_file_that_is_too_large_is_refused(tab, monkeypatch):
    tab.client.application.config["MAX_CONTENT_LENGTH"] = 1000
    number = tab.get("state").json["columns"][0]["number"]
    answer = tab.post(f"columns/{number}/images", **upload("a.jpg", bytes(2000)))
    assert answer.status_code == 413
    assert "larger than" in answer.json["error"]
    # models may be larger than images
    assert tab.post("model", **upload("m.skxma", bytes(2000))).status_code == 400
    monkeypatch.setattr(server, "MAX_MODEL", 1500)
    assert tab.post("model", **upload("m.skxma", bytes(2000))).status_code == 413


def test_other_sites_are_turned_away(tab, app):
    assert tab.post("columns", headers={"Origin": "http://evil.example"}).status_code == 403
    assert app.test_client().put(f"/tabs/{uuid4()}", headers={"Origin": "null"}).status_code == 403
    assert tab.get("state", headers={"Host": "evil.example"}).status_code == 400
    assert len(tab.get("state").json["columns"]) == 2
    assert tab.post("columns", headers={"Origin": "http://localhost"}).status_code == 200
    assert app.test_client().get("/tabs/1/state").status_code == 404


def test_the_page_names_nothing_on_the_network(app):
    client = app.test_client()
    for name in ("", "page.css", "page.js"):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert re.findall(rb"(?:https?:)?//[a-z]", answer.data) == []
    assert sorted(file.name for file in server.PAGE.iterdir()) == ["page.css", "page.html", "page.js"]
    assert client.get("/_session.py").status_code == 404
    assert "default-src 'self'" in Tab(app).get("state").headers["Content-Security-Policy"]


def test_it_listens_on_this_machine_only_and_refuses_a_port_that_is_taken(app):
    listening = server.listen(app, 0)
    try:
        assert listening.server_address[0] == "127.0.0.1"
        with pytest.raises(OSError, match=f"Port {listening.port} cannot be had .* choose another"):
            server.listen(app, listening.port)
    finally:
        listening.server_close()
