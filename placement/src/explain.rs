//! Why a choice fell as it did: each candidate, what the filters said, how the director scored it.

use std::fmt;

use serde::Serialize;

/// What became of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict<L> {
    /// It was taken.
    Chosen {
        /// The director's score; higher is better.
        score: f64,
    },
    /// It would have done.
    Fits {
        /// The director's score; higher is better.
        score: f64,
    },
    /// A filter refused it.
    Refused(L),
}

/// One candidate and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate<I, L> {
    /// Which one.
    pub id: I,
    /// What people call it.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict<L>,
}

/// A whole choice. `Display` renders a few lines of text, the best candidate first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation<I, L> {
    /// What was asked for.
    pub asked: String,
    /// How those that fit were ordered.
    pub director: String,
    /// Every candidate, in the order in which they were looked at.
    pub candidates: Vec<Candidate<I, L>>,
}

impl<I, L> Explanation<I, L> {
    /// The candidate that was taken.
    pub fn chosen(&self) -> Option<&Candidate<I, L>> {
        self.candidates.iter().find(|candidate| matches!(candidate.verdict, Verdict::Chosen { .. }))
    }

    /// Runs the second half of a pipeline: of the candidates that no filter refused, the one with the highest
    /// score is chosen; of equal ones the first. Answers its place in `filtered`.
    pub(crate) fn direct(
        asked: String,
        director: String,
        filtered: Vec<(I, String, Result<f64, L>)>,
    ) -> (Self, Option<usize>) {
        let mut best: Option<(usize, f64)> = None;
        for (at, (_, _, scored)) in filtered.iter().enumerate() {
            if let Ok(score) = scored
                && best.is_none_or(|(_, highest)| score.total_cmp(&highest).is_gt())
            {
                best = Some((at, *score));
            }
        }
        let chosen = best.map(|(at, _)| at);
        let verdict = |at, scored| match scored {
            Ok(score) if Some(at) == chosen => Verdict::Chosen { score },
            Ok(score) => Verdict::Fits { score },
            Err(lack) => Verdict::Refused(lack),
        };
        let candidates = filtered
            .into_iter()
            .enumerate()
            .map(|(at, (id, name, scored))| Candidate { id, name, verdict: verdict(at, scored) })
            .collect();
        (Self { asked, director, candidates }, chosen)
    }
}

impl<I: fmt::Display, L: fmt::Display> fmt::Display for Explanation<I, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, by {}", self.asked, self.director)?;
        if self.candidates.is_empty() {
            return write!(f, "\n  there are no candidates");
        }
        let mut rows: Vec<&Candidate<I, L>> = self.candidates.iter().collect();
        // A stable sort: refused ones keep their order.
        rows.sort_by(|a, b| rank(&b.verdict).total_cmp(&rank(&a.verdict)));
        for Candidate { id, name, verdict } in rows {
            match verdict {
                Verdict::Chosen { score } => write!(f, "\n  taken    {name} [{id}]: score {score:.3}")?,
                Verdict::Fits { score } => write!(f, "\n  fits     {name} [{id}]: score {score:.3}")?,
                Verdict::Refused(lack) => write!(f, "\n  refused  {name} [{id}]: {lack}")?,
            }
        }
        Ok(())
    }
}

fn rank<L>(verdict: &Verdict<L>) -> f64 {
    match verdict {
        Verdict::Chosen { .. } => f64::INFINITY,
        Verdict::Fits { score } => *score,
        Verdict::Refused(_) => f64::NEG_INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_chosen_and_the_text_tells_why() {
        let filtered = vec![
            (1, "one".to_owned(), Err("is full")),
            (2, "two".to_owned(), Ok(0.5)),
            (3, "three".to_owned(), Ok(0.75)),
            (4, "four".to_owned(), Ok(0.75)),
        ];
        let (explanation, chosen) = Explanation::direct("gpu".into(), "free memory".into(), filtered);
        assert_eq!(chosen, Some(2));
        assert_eq!(explanation.chosen().unwrap().id, 3);
        let text = "gpu, by free memory\n  taken    three [3]: score 0.750\n  fits     four [4]: score 0.750\n  \
                    fits     two [2]: score 0.500\n  refused  one [1]: is full";
        assert_eq!(explanation.to_string(), text);
    }

    #[test]
    fn no_candidates_is_said_so() {
        let (explanation, chosen) = Explanation::<u8, &str>::direct("gpu".into(), "any".into(), vec![]);
        assert_eq!((explanation.chosen(), chosen), (None, None));
        assert_eq!(explanation.to_string(), "gpu, by any\n  there are no candidates");
    }
}
