"""Prompts and the task each one is: 60 of them (20 Korean) with which the rules were made, and 20 that were written afterwards."""

from __future__ import annotations

FIXTURE = [
    # classification, English
    (
        "classification",
        "Classify the following review as positive, negative or neutral.\n\nReview: The battery died after two weeks and nobody answered my emails.",
    ),
    ("classification", "Is this email spam? Answer yes or no.\n\nCongratulations! You have won a cruise. Click here to claim your prize."),
    (
        "classification",
        "Assign one of these labels to the support ticket: billing, shipping, technical, other.\n\nTicket: I was charged twice for order 1182.",
    ),
    (
        "classification",
        'Which department should handle this message: sales, legal or engineering?\n\n"Our invoice still shows the old VAT number."',
    ),
    ("classification", 'Detect the language of this text and reply with the ISO code only: "Guten Morgen, wie geht es Ihnen?"'),
    ("classification", "Text: I think the vacation is okay.\nSentiment:"),
    ("classification", "Label each tweet as toxic or not toxic.\n\n1. have a lovely day\n2. you are an idiot"),
    ("classification", 'True or false: the following sentence contains personal data.\n\n"Maria Lopez lives at 12 Elm Street."'),
    (
        "classification",
        "Rate the urgency of this bug report on a scale from 1 to 5. Return only the number.\n\nThe login button is slightly off-centre.",
    ),
    (
        "classification",
        "Choose one topic for the article from: politics, sport, science, culture.\n\nResearchers found that octopuses dream.",
    ),
    (
        "classification",
        "What is the customer's intent? Options: cancel, upgrade, complain, ask.\n\n'Hi, how do I move to the yearly plan?'",
    ),
    (
        "classification",
        "Decide whether the two questions are duplicates. Output 1 or 0.\n\nQ1: How do I reset my password?\nQ2: I forgot my password, what now?",
    ),
    (
        "classification",
        "Perform sentiment analysis on the comment below and answer with a single word.\n\nThe staff was rude but the food was amazing.",
    ),
    ("classification", "Tag this product with exactly one category (shoes, bags, hats): 'Waterproof hiking boots, brown leather'."),
    # analysis, English
    (
        "analysis",
        "Analyze the quarterly figures below and explain what drove the drop in margin.\n\nQ1 revenue 4.2M, cost 2.9M\nQ2 revenue 4.4M, cost 3.6M",
    ),
    ("analysis", "Compare PostgreSQL and MongoDB for an event-sourcing system with 2 TB of data a year. Which trade-offs matter most?"),
    ("analysis", "Why did the Roman Republic collapse? Weigh at least three explanations against each other."),
    (
        "analysis",
        "Evaluate the strength of the argument in this essay and point out its hidden assumptions.\n\nCities should ban cars because ...",
    ),
    (
        "analysis",
        "Our conversion rate fell from 3.1% to 2.2% after the redesign. What are the likely root causes, and how would you test each?",
    ),
    ("analysis", "What are the pros and cons of a four-day work week for a hospital?"),
    (
        "analysis",
        "Review this contract clause and assess the risks for the tenant.\n\nThe landlord may enter the premises at any time without notice.",
    ),
    (
        "analysis",
        "Given the logs below, diagnose why the service restarts every night.\n\n02:00 cron start\n02:01 OOMKilled\n02:02 restart",
    ),
    ("analysis", "Do a SWOT of a small bakery that wants to open a second shop in a university town."),
    (
        "analysis",
        "Here is a table of monthly churn by cohort. What patterns do you see and what do they imply for pricing?\n\nJan 5% Feb 7% Mar 9%",
    ),
    ("analysis", "Assess how a carbon tax of 100 dollars a ton would affect steel producers in Korea over ten years."),
    (
        "analysis",
        "Interpret the results of this A/B test. Is the difference meaningful, and should we ship variant B?\n\nA: 1200/40100, B: 1289/40050",
    ),
    ("analysis", "Critique the methodology of the following study and suggest which confounders it ignores.\n\nWe asked 40 students ..."),
    # other, English
    ("other", "Translate into French: The meeting has been moved to Thursday."),
    (
        "other",
        "Summarize the following article in three sentences.\n\nThe central bank raised rates for the third time this year, citing persistent inflation and a tight labour market.",
    ),
    ("other", "Write a short poem about autumn in Seoul."),
    ("other", "Write a Python function that merges two sorted lists."),
    ("other", "Extract all dates and amounts from the text as JSON.\n\nInvoice of 3 May 2024, total 1,200 EUR, due 2 June 2024."),
    ("other", "What is the capital of Australia?"),
    ("other", "Rewrite this sentence in a friendlier tone: 'Your request was denied because you filled in the form wrongly.'"),
    ("other", "Draft an email to a customer whose parcel was lost, offering a refund."),
    ("other", "Hello! How are you today?"),
    ("other", "List ten names for a coffee shop run by two cats."),
    ("other", "Convert 72 degrees Fahrenheit to Celsius."),
    ("other", "Fix the grammar: 'She go to school every days.'"),
    ("other", "Continue the story: The door had not been opened for a hundred years, until"),
    # Korean: classification
    ("classification", "다음 리뷰를 긍정, 부정, 중립 중 하나로 분류하세요.\n\n리뷰: 배송이 너무 늦어서 실망했어요."),
    ("classification", "이 메일이 스팸인지 아닌지 예/아니오로만 답하세요.\n\n축하합니다! 무료 여행에 당첨되셨습니다."),
    ("classification", "아래 문의를 담당할 부서를 결제, 배송, 기술지원 중에서 하나만 골라 주세요.\n\n문의: 카드 결제가 두 번 됐어요."),
    ("classification", '다음 문장의 감정을 한 단어로 답해 줘: "오늘 시험에 합격해서 날아갈 것 같아!"'),
    ("classification", "댓글에 욕설이 포함되어 있는지 여부를 판별해 주세요.\n\n댓글: 진짜 최고의 영상이네요"),
    ("classification", "이 뉴스 기사의 카테고리는? (정치, 경제, 스포츠, 문화)\n\n손흥민이 결승골을 터뜨렸다."),
    (
        "classification",
        "고객 발화의 의도를 파악해서 '해지', '변경', '문의' 가운데 하나로 라벨을 붙여라.\n\n고객: 요금제를 더 싼 걸로 바꾸고 싶은데요.",
    ),
    # Korean: analysis
    (
        "analysis",
        "다음 매출 데이터를 분석하고 2분기 이익률이 떨어진 원인을 설명하세요.\n\n1분기 매출 42억, 비용 29억\n2분기 매출 44억, 비용 36억",
    ),
    ("analysis", "전세와 월세의 장단점을 1인 가구 입장에서 비교해 주세요."),
    ("analysis", "이 계약 조항이 임차인에게 어떤 위험 요소가 있는지 검토해 줘.\n\n임대인은 언제든지 통보 없이 출입할 수 있다."),
    ("analysis", "우리 앱의 이탈률이 왜 높아졌는지 가능한 원인을 추론하고 개선 방안을 제시해 주세요."),
    ("analysis", "최저임금 인상이 소상공인 고용에 미치는 영향을 단계별로 평가하시오."),
    ("analysis", "다음 논문의 연구 방법이 타당한지 비판적으로 고찰하고 한계를 지적하세요.\n\n우리는 학생 40명을 대상으로..."),
    ("analysis", "지난 5년간의 출산율 추세를 해석하고 향후 10년을 전망해 주세요.\n\n2019 0.92, 2020 0.84, 2021 0.81, 2022 0.78, 2023 0.72"),
    # Korean: other
    ("other", "다음 문장을 영어로 번역해 주세요: 회의가 목요일로 옮겨졌습니다."),
    ("other", "아래 기사를 세 문장으로 요약해 줘.\n\n한국은행이 기준금리를 동결했다."),
    ("other", "가을의 서울을 주제로 짧은 시를 써 줘."),
    ("other", "대한민국의 수도는 어디인가요?"),
    ("other", "고객에게 보낼 사과 메일을 정중하게 작성해 주세요. 택배가 분실되었습니다."),
    ("other", "문장에서 날짜와 금액을 JSON으로 추출하세요.\n\n2024년 5월 3일 청구서, 합계 120만 원"),
]

#: Not used while the rules were made.
UNSEEN = [
    ("classification", "Please classify this support email by product line: Cloud, Desktop, Mobile.\n\nMy phone app freezes."),
    ("classification", "Sentiment: 'The plot was predictable but I cried anyway.'"),
    ("classification", "Tell me if this news headline is clickbait. Answer yes or no.\n\nYou won't believe what he did next"),
    ("classification", "Label the part of speech of each word in: 'The cat sat'."),
    ("classification", "Choose the right tax code (A, B or C) for: annual software licence."),
    ("classification", "다음 상담 내용을 불만, 칭찬, 질문으로 분류해 주세요.\n\n직원이 정말 친절했어요."),
    ("classification", "이 문서가 계약서인지 판별하세요. 예/아니오\n\n갑과 을은..."),
    ("classification", "제품 후기의 감정을 긍정 또는 부정으로 판단: 다시는 안 사요"),
    ("analysis", "Analyse why our newsletter open rate has dropped since March."),
    ("analysis", "Evaluate three options for our cloud provider and recommend one."),
    ("analysis", "What are the risks of storing passwords in plain text?"),
    ("analysis", "Interpret this regression output: coef 0.42, p 0.03."),
    ("analysis", "경쟁사 대비 우리 제품의 강점과 약점을 분석해 주세요."),
    ("analysis", "매출 감소의 원인을 파악하고 대응 전략을 수립해 주세요.\n\n1월 100, 2월 80"),
    ("analysis", "인공지능이 일자리에 미치는 영향에 대해 찬성과 반대 입장을 비교하시오."),
    ("other", "Write a haiku about the sea."),
    ("other", "Translate 'good morning' into Japanese."),
    ("other", "Summarize this paragraph: Solar panels convert light..."),
    ("other", "다음 글을 한 문장으로 요약하세요.\n\n분석 결과 매출이 늘었다."),
    ("other", "결혼식 축사를 써 주세요."),
]
