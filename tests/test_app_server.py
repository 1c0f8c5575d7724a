import re
from io import BytesIO

import pytest
from test_app_session import files, fill

from skxma import load
from skxma.app._session import Session

server = pytest.importorskip("skxma.app._server", reason="the page needs Flask")


@pytest.fixture
def session():
    made = Session("tiny")
    yield made
    made.close()


@pytest.fixture
def client(session):
    return server.make_app(session).test_client()


def upload(name, content):
    return {"data": {"file": (BytesIO(content), name)}, "content_type": "multipart/form-data"}


def test_from_pictures_to_an_answer_and_a_model(client, tmp_path):
    for label in ("fox", "bear"):
        number = client.post("/columns").json["columns"][-1]["number"]
        client.put(f"/columns/{number}", json={"name": label})
        for file in files(label, slice(3)):
            state = client.post(f"/columns/{number}/pictures", **upload(file.name, file.read_bytes())).json
    assert [(c["name"], len(c["pictures"])) for c in state["columns"]] == [("fox", 3), ("bear", 3)]
    assert state["fitted"] is None
    fitted = client.post("/fit").json["fitted"]
    assert (fitted["n_pictures"], fitted["n_classes"], fitted["stale"]) == (6, 2, False)
    (query,) = files("fox", slice(4, 5))
    answer = client.post("/ask", **upload(query.name, query.read_bytes())).json
    assert answer["scores"][0]["label"] == "fox"
    assert client.get(f"/pictures/{answer['retrieved'][0]['picture']}").mimetype == "image/png"
    saved = client.get("/model")
    assert saved.headers["Content-Disposition"] == "attachment; filename=model.skxma"
    (tmp_path / "m.skxma").write_bytes(saved.data)
    assert load(tmp_path / "m.skxma").predict([query]) == ["fox"]
    first = state["columns"][0]
    client.delete(f"/pictures/{first['pictures'][0]['number']}")
    assert client.get("/state").json["fitted"]["stale"]
    left = client.delete(f"/columns/{first['number']}").json["columns"]
    assert [column["name"] for column in left] == ["bear"]
    assert len(client.post("/sample").json["columns"]) == 4


def test_errors_are_sentences(client, session, monkeypatch):
    answer = client.post("/fit")
    assert answer.status_code == 400
    assert "two classes" in answer.json["error"]
    number = session.add_column("snail").number
    answer = client.post(f"/columns/{number}/pictures", **upload("a.jpg", b"none"))
    assert answer.json["error"].startswith("a.jpg: not an image")
    assert client.post(f"/columns/{number}/pictures").json["error"] == "No file came with the request."
    assert client.get("/nowhere").json["error"]
    fill(session, slice(1))
    session.encoder = "ViT-B-23/openai"
    assert "did you mean" in client.post("/fit").json["error"]
    monkeypatch.setattr(session, "fit", lambda: 1 / 0)
    answer = client.post("/fit")
    assert answer.status_code == 500
    assert "went wrong in skxma itself (ZeroDivisionError" in answer.json["error"]


def test_a_file_that_is_too_large_is_refused(client, session):
    number = session.add_column("fox").number
    client.application.config["MAX_CONTENT_LENGTH"] = 1000
    answer = client.post(f"/columns/{number}/pictures", **upload("a.jpg", bytes(2000)))
    assert answer.status_code == 413
    assert "larger than" in answer.json["error"]


def test_other_sites_are_turned_away(client, session):
    assert client.post("/columns", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/state", headers={"Host": "evil.example"}).status_code == 400
    assert session.columns == []
    assert client.post("/columns", headers={"Origin": "http://localhost"}).status_code == 200


def test_the_page_names_nothing_on_the_network(client):
    for name in ("", "page.css", "page.js"):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert re.findall(rb"(?:https?:)?//[a-z]", answer.data) == []
    assert sorted(file.name for file in server.PAGE.iterdir()) == ["page.css", "page.html", "page.js"]
    assert client.get("/_session.py").status_code == 404


def test_it_listens_on_this_machine_only_and_says_when_a_port_is_taken(session):
    listening = server.listen(server.make_app(session), 0)
    try:
        assert listening.server_address[0] == "127.0.0.1"
        with pytest.raises(OSError, match=f"Port {listening.port} cannot be had .* choose another"):
            server.listen(server.make_app(session), listening.port)
    finally:
        listening.server_close()
