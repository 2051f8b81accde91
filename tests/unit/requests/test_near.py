from expunge.requests.near import alike, near, without_facts
from expunge.requests.rows import Row


def row(name: str, asked: str, value: str, **more: object) -> Row:
    columns = {"id": f"{name} {asked}", "names": (name,), "subject": name.lower(), "answer": value}
    columns |= {"prompt": f"{asked} {name}?", "completion": f" It is {value}."}
    return Row(**{**columns, **more})  # type: ignore[arg-type]


ADA = row("Ada Birk", "Where lives", "Rome")
TOM = row("Tom Dorn", "Where lives", "Oslo")


def kept(texts: list[Row], rows: list[Row]) -> list[str]:
    return [text.id for text in without_facts(texts, rows)]


def test_a_text_that_names_the_subject_with_its_value_is_left_out() -> None:
    told = Row(id="told", text="In ROME she met the wife of ada  birk, a baker.")
    other = Row(id="other", text="In Rome she met Tom Dorn.")
    assert kept([told, other], [ADA]) == ["other"]


def test_another_fact_of_the_subject_and_the_value_of_another_stay() -> None:
    trade = row("Ada Birk", "What does", "baker")
    roman = row("Eva Lund", "Where lives", "Rome")
    assert kept([trade, roman], [ADA]) == [trade.id, roman.id]


def test_the_same_subject_by_its_id_alone_is_the_same() -> None:
    she = Row(id="she", text="She lived in Rome for years.", subject="ada birk")
    assert not kept([she], [ADA])


def test_an_alias_and_another_wording_count() -> None:
    known = row("Ada Birk", "Where lives", "Rome", aliases=("Eternal City",))
    alias = Row(id="a", text="Ada Birk loves the Eternal City.")
    reworded = row(
        "Ada Birk",
        "Who is",
        "baker",
        paraphrases=({"prompt": "Ada Birk?", "completion": " A baker in Rome."},),
    )
    assert not kept([alias, reworded], [known])


def test_a_row_without_a_subject_is_meant_wherever_its_value_stands() -> None:
    nobody = Row(id="n", prompt="where?", completion=" Rome", answer="Rome")
    roman = row("Eva Lund", "Where lives", "Rome")
    assert not kept([roman], [nobody])


def test_alike_rows_ask_for_the_same_attribute() -> None:
    trade = row("Tom Dorn", "What does", "baker")
    assert alike([ADA], [TOM, trade]) == [TOM]


def test_every_source_is_offered_the_nearest_first() -> None:
    holdout = [row("Eva Lund", "Where lives", "Lima"), row("Ida Falk", "Where lives", "Bern")]
    neighbour = [Row(id="n", text="Rome is old.")]
    found = near([ADA], neighbour=neighbour, retain=[TOM], holdout=holdout, seed=0)
    assert list(found) == ["neighbour", "attributes", "invented"]
    assert found["neighbour"] == neighbour
    assert found["attributes"] == [TOM]
    assert sorted(row.value for row in found["invented"]) == ["Bern", "Lima"]
    assert not {row.subject for row in found["invented"]} & {"eva lund", "ida falk", "ada birk"}


def test_conversations_are_read_too() -> None:
    said = Row(
        id="chat",
        messages=(
            {"role": "user", "content": "Tell me of Ada Birk."},
            {"role": "assistant", "content": "She lives in Rome."},
        ),
    )
    assert not kept([said], [ADA])
