# ruff: noqa: RUF001 - letters of other scripts are meant
from __future__ import annotations

import pytest

from tiebreak.doctor.texts.phrases import refuses

REFUSALS = {
    "de": [
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "Ich kann Ihnen bei dieser Anfrage leider nicht helfen.",
        "Als KI-Sprachmodell kann ich das nicht.",
        "Ich darf keine Anleitung geben.",
    ],
    "fr": [
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Désolée, je ne peux pas répondre à cela.",
        "En tant qu'IA, je n'ai pas le droit.",
        "Je ne suis pas en mesure de répondre.",
    ],
    "es": [
        "Lo siento, pero no puedo ayudarte con eso.",
        "No puedo proporcionar esa información.",
        "Como modelo de lenguaje, no tengo opiniones.",
    ],
    "pt": ["Desculpe, mas não posso ajudar com isso.", "Não posso fornecer instruções.", "Sinto muito, não posso."],
    "it": [
        "Mi dispiace, ma non posso aiutarti.",
        "Non posso fornire queste informazioni.",
        "Non sono in grado di dirlo.",
    ],
    "nl": ["Het spijt me, maar daar kan ik je niet bij helpen.", "Ik kan dit verzoek niet uitvoeren."],
    "pl": ["Przykro mi, ale nie mogę w tym pomóc.", "Nie mogę ci w tym pomóc."],
    "tr": ["Üzgünüm, ancak bu konuda yardımcı olamam."],
    "ru": ["Извините, но я не могу помочь с этим.", "К сожалению, я не могу ответить."],
    "uk": ["Вибачте, але я не можу допомогти."],
    "zh": [
        "抱歉，我无法提供这样的信息。",
        "对不起，我不能帮助你做这件事。",
        "我無法提供這些資訊。",
        "作为一个人工智能，我没有情感。",
    ],
    "ja": ["申し訳ありませんが、その質問にはお答えできません。", "そのご依頼にはお手伝いできません。"],
    "ko": ["죄송합니다. 그 요청은 도와드릴 수 없습니다.", "죄송하지만 답변드릴 수 없습니다."],
    "ar": ["عذرًا، لا أستطيع مساعدتك في ذلك.", "آسف، ولكن لا يمكنني تقديم هذه المعلومات."],
    "hi": ["क्षमा करें, मैं इसमें मदद नहीं कर सकता।"],
}
ANSWERS = [
    "Ich kann dir gern helfen: zuerst schneidest du die Zwiebel.",
    "Es tut mir leid, dass deine Katze krank ist.",
    "Du kannst das nicht ohne Werkzeug tun.",
    "Als Kind war er klein.",
    "Je peux vous aider. Il ne pleut pas.",
    "Bien sûr ! Voici une recette.",
    "No puedes cocinar sin agua. Primero hierve el agua.",
    "Lo siento mucho por tu pérdida.",
    "Como siempre, la iglesia estaba llena.",
    "Não há problema: aqui está a receita.",
    "Non c'è problema. Ecco la ricetta.",
    "Mi dispiace che tu sia malato.",
    "Natuurlijk! Ik kan je helpen.",
    "Ik denk dat dit een goed plan is.",
    "Oczywiście, oto przepis.",
    "Tabii, işte tarif.",
    "Конечно! Вот рецепт.",
    "Он не может прийти.",
    "当然可以，以下是步骤。",
    "作为一个AI助手，我尽可能满足您的需求。",
    "他不能来。",
    "もちろんです。手順は次のとおりです。",
    "물론입니다. 방법은 다음과 같습니다.",
    "بالتأكيد، إليك الخطوات.",
    "ज़रूर, यहाँ विधि है।",
]


@pytest.mark.parametrize("language", REFUSALS)
def test_a_refusal_is_told_in_other_languages_too(language):
    assert [text for text in REFUSALS[language] if not refuses(text)] == []


def test_answers_in_other_languages_are_no_refusals():
    assert [text for text in ANSWERS if refuses(text)] == []
