//! Tables for people: columns aligned, fitted to a width by wrapping the cells of those columns
//! that may become narrower. Pure: rows in, lines out.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    flexible: bool,
    /// How much of the room it gets where there is too little, against others.
    share: usize,
}

impl Column {
    /// A column of text that keeps its width.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self {
            title,
            right: false,
            flexible: false,
            share: 1,
        }
    }

    /// A column of numbers.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self {
            title,
            right: true,
            flexible: false,
            share: 1,
        }
    }

    /// A flexible column that may be so many times as wide as others where room is scarce.
    pub(crate) const fn wide(title: &'static str, share: usize) -> Self {
        Self {
            share,
            ..Self::flexible(title)
        }
    }

    /// A column whose cells are wrapped where the table is too wide.
    pub(crate) const fn flexible(title: &'static str) -> Self {
        Self {
            title,
            right: false,
            flexible: true,
            share: 1,
        }
    }
}

/// Rows of cells; a cell may have several lines.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Vec<String>>>,
}

/// Narrower than this no column becomes.
const NARROWEST: usize = 8;
const GAP: &str = "  ";

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; a cell per column, a line per `\n` in it. Cells are safe for a terminal.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let split = |cell: String| cell.split('\n').map(str::to_owned).collect();
        self.rows.push(cells.into_iter().map(split).collect());
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The lines of the table: titles, a rule, rows. No line is wider than `width` unless even the
    /// narrowest columns need more.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<String> {
        let widths = self.widths(width);
        let titles: Vec<Vec<String>> = self
            .columns
            .iter()
            .map(|column| vec![column.title.to_owned()])
            .collect();
        let mut lines = Vec::new();
        self.push_row(&titles, &widths, &mut lines);
        let total = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
        lines.push("-".repeat(total));
        for row in &self.rows {
            self.push_row(row, &widths, &mut lines);
        }
        lines
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|c| c.title.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                let widest = cell.iter().map(|line| line.width()).max().unwrap_or(0);
                *width = (*width).max(widest);
            }
        }
        let Some(limit) = limit else { return widths };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let widest = self
                .columns
                .iter()
                .zip(widths.iter_mut())
                .filter(|(column, width)| column.flexible && **width > NARROWEST)
                .max_by_key(|(column, width)| **width / column.share.max(1))
                .map(|(_, width)| width);
            match widest {
                Some(width) => *width -= 1,
                None => break,
            }
        }
        widths
    }

    fn push_row(&self, row: &[Vec<String>], widths: &[usize], lines: &mut Vec<String>) {
        let cells: Vec<Vec<String>> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| cell.iter().flat_map(|line| wrap(line, *width)).collect())
            .collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            let mut line = String::new();
            for ((column, cell), width) in self.columns.iter().zip(&cells).zip(widths) {
                if !std::ptr::eq(column, self.columns.as_ptr()) {
                    line.push_str(GAP);
                }
                let text = cell.get(at).map_or("", String::as_str);
                let pad = " ".repeat(width.saturating_sub(text.width()));
                if column.right {
                    line.push_str(&pad);
                    line.push_str(text);
                } else {
                    line.push_str(text);
                    line.push_str(&pad);
                }
            }
            lines.push(line.trim_end().to_owned());
        }
    }
}

/// A line in pieces of at most `width` columns, cut behind a space where there is one in the latter
/// half, else behind what divides names, but for a point or comma in a number.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut used = 0;
    for c in line.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width && !piece.is_empty() {
            let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            let divides = |(at, found): &(usize, &str)| {
                let mut after = piece.get(at + found.len()..).unwrap_or_default().chars();
                let in_number = is_digit(piece.get(..*at).and_then(|text| text.chars().last()))
                    && is_digit(after.next().or(Some(c)));
                !(in_number && matches!(*found, "." | ","))
            };
            let names = || {
                piece
                    .rmatch_indices(['/', ',', '.', '-', '_'])
                    .find(divides)
            };
            let in_latter_half = |at: &usize| *at * 2 >= piece.len();
            let good = piece
                .rfind(' ')
                .map(|at| at + 1)
                .filter(in_latter_half)
                .or_else(|| names().map(|(at, _)| at + 1).filter(in_latter_half));
            let rest = piece.split_off(good.unwrap_or(piece.len()));
            pieces.push(std::mem::replace(&mut piece, rest));
            used = piece.width();
        }
        piece.push(c);
        used += wide;
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&[
            Column::text("ID"),
            Column::flexible("Paths"),
            Column::number("Size"),
        ]);
        table.row(vec![
            "12345678".to_owned(),
            "/srv/models/llama\n/etc".to_owned(),
            "1.00 GiB".to_owned(),
        ]);
        table.row(vec!["9".to_owned(), "/".to_owned(), "5 B".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let expected = [
            "ID        Paths                  Size",
            "-------------------------------------",
            "12345678  /srv/models/llama  1.00 GiB",
            "          /etc",
            "9         /                       5 B",
        ];
        assert_eq!(sample().lines(None), expected);
    }

    #[test]
    fn a_table_fits_its_width_and_loses_nothing() {
        for width in 28..40 {
            let lines = sample().lines(Some(width));
            assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
            let all: String = lines.concat().replace(' ', "");
            assert!(all.contains("llama"), "{lines:?}");
        }
        let narrow = sample().lines(Some(30));
        assert_eq!(narrow[2], "12345678  /srv/       1.00 GiB");
        assert_eq!(narrow[3], "          models/");
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(wrap("漢字漢字", 4), ["漢字", "漢字"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn words_stay_whole_where_there_is_a_space_and_numbers_anyway() {
        assert_eq!(
            wrap("decompression, 70.7 % of its time", 19),
            ["decompression, ", "70.7 % of its time"]
        );
        assert_eq!(wrap("/srv/v1.25", 9), ["/srv/", "v1.25"]);
        assert_eq!(wrap("model.layers.12", 13), ["model.layers.", "12"]);
    }
}
