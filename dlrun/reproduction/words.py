"""The few words around the texts of the reproductions, in both languages."""

UNTESTED_SIGN = "○"
WORDS: dict[str, dict[str, str]] = {
    "en": {
        "not tested": "not tested at this budget",
        "it needs": "it needs",
        "own words": "Not the source's experiment but a changed one:",
        "seeds": "seeds",
        "in runs": "in runs",
        "notes": "What one would miss",
        "line": "line",
        "printed": "printed",
        "ours": "here, mean ± standard deviation over seeds",
        "what p is": "p: how likely one more run of ours would be as far from our mean as the printed value is "
        "(two-sided, t distribution, deviation · √(1 + 1/n); losses by their logarithms); "
        "below 0.01 the printed value is not one of ours.",
    },
    "es": {
        "not tested": "sin comprobar con este presupuesto",
        "it needs": "necesita",
        "own words": "No es el experimento de la fuente, sino uno cambiado:",
        "seeds": "semillas",
        "in runs": "en entrenamientos",
        "notes": "Lo que se pasaría por alto",
        "line": "línea",
        "printed": "impreso",
        "ours": "aquí, media ± desviación típica entre semillas",
        "what p is": "p: probabilidad de que otro entrenamiento nuestro se aleje de nuestra media tanto como el valor "
        "impreso (dos colas, distribución t, desviación · √(1 + 1/n); las pérdidas, por sus "
        "logaritmos); por debajo de 0.01 el valor impreso no es de los nuestros.",
    },
}
